use std::collections::VecDeque;
use std::sync::Arc;

use portolan_model::ClusterPolicy;
use tokio::time::advance;

use super::*;
use crate::cluster::testing::{cluster_of, endpoint, number, pick};
use crate::cluster::{Balancers, Pick, PickContext};

const OK: Outcome = Outcome::Answered(StatusCode::OK);
const UNAVAILABLE: Outcome = Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE);
const BROKEN: Outcome = Outcome::Answered(StatusCode::INTERNAL_SERVER_ERROR);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Picks until the endpoint of this number comes; the others answer well.
fn pick_of(balancers: &mut Balancers, cluster: &Arc<Cluster>, wanted: u8) -> Pick {
    for _ in 0..100 {
        let mut pick = pick(balancers, cluster).unwrap();
        if number(&pick) == wanted {
            return pick;
        }
        pick.record(OK, Instant::now());
    }
    panic!("endpoint {wanted} is among 100 picks")
}

fn fail(balancers: &mut Balancers, cluster: &Arc<Cluster>, wanted: u8, outcome: Outcome, times: u32) {
    for _ in 0..times {
        pick_of(balancers, cluster, wanted).record(outcome, Instant::now());
    }
}

/// The endpoints that get something of 40 requests.
fn used(balancers: &mut Balancers, cluster: &Arc<Cluster>) -> Vec<u8> {
    let mut numbers = (0..40).map(|_| number(&pick(balancers, cluster).unwrap())).collect::<Vec<_>>();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn health(cluster: &Cluster, at: usize) -> Health {
    endpoint(cluster, at).health(Instant::now())
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_and_a_good_answer_starts_anew() {
    for outcome in [Outcome::ConnectFailed, Outcome::Reset, UNAVAILABLE] {
        let cluster = cluster_of(4, ClusterPolicy::default());
        let (mut one, mut other) = (Balancers::new(0, 2), Balancers::new(1, 2));
        fail(&mut one, &cluster, 2, outcome, 4);
        fail(&mut one, &cluster, 2, OK, 1);
        fail(&mut one, &cluster, 2, outcome, 4);
        assert_eq!(health(&cluster, 1), Health::Healthy, "not five in a row: {outcome:?}");
        fail(&mut other, &cluster, 2, outcome, 1);
        assert_eq!(health(&cluster, 1), Health::Ejected, "all workers count together: {outcome:?}");
        assert_eq!(used(&mut one, &cluster), [1, 3, 4]);
        assert_eq!(used(&mut other, &cluster), [1, 3, 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_500_counts_only_when_asked_and_nothing_counts_when_turned_off() {
    let eject_on_500 = OutlierDetection { eject_on_500: true, ..OutlierDetection::default() };
    let off = OutlierDetection { consecutive_failures: 0, ..OutlierDetection::default() };
    for (outlier_detection, outcome, expected) in [
        (OutlierDetection::default(), BROKEN, Health::Healthy),
        (eject_on_500, BROKEN, Health::Ejected),
        (off, UNAVAILABLE, Health::Healthy),
    ] {
        let cluster = cluster_of(4, ClusterPolicy { outlier_detection, ..ClusterPolicy::default() });
        fail(&mut Balancers::new(0, 1), &cluster, 1, outcome, 5);
        assert_eq!(health(&cluster, 0), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_ejection_one_request_at_a_time_tries_and_its_answer_decides() {
    let cluster = cluster_of(4, ClusterPolicy::default());
    let (mut one, mut other) = (Balancers::new(0, 2), Balancers::new(1, 2));
    fail(&mut one, &cluster, 2, UNAVAILABLE, 5);
    assert_eq!(used(&mut other, &cluster), [1, 3, 4]);
    advance(seconds(5)).await;
    assert_eq!(health(&cluster, 1), Health::Returning);
    assert_eq!(used(&mut other, &cluster), [1, 3, 4], "a request that can be copied is waited for");
    advance(seconds(1)).await;

    let cancelled = pick(&mut one, &cluster).unwrap();
    assert_eq!(number(&cancelled), 2);
    assert_eq!(used(&mut other, &cluster), [1, 3, 4], "while one tries, nobody else does");
    drop(cancelled);
    let mut bad = pick(&mut other, &cluster).unwrap();
    assert_eq!(number(&bad), 2, "a trial that was cancelled is made again");
    bad.record(UNAVAILABLE, Instant::now());
    assert_eq!((health(&cluster, 1), used(&mut one, &cluster)), (Health::Ejected, vec![1, 3, 4]));

    advance(seconds(9)).await;
    assert_eq!(health(&cluster, 1), Health::Ejected, "the second ejection is twice as long");
    advance(seconds(2)).await;
    let mut good = pick(&mut one, &cluster).unwrap();
    good.record(OK, Instant::now());
    assert_eq!(health(&cluster, 1), Health::Healthy);
    assert_eq!(used(&mut one, &cluster), [1, 2, 3, 4], "the trial's body may still run");
    assert_eq!(used(&mut other, &cluster), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_tries_where_a_request_can_be_copied() {
    let cluster = cluster_of(4, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    fail(&mut one, &cluster, 2, UNAVAILABLE, 5);
    advance(seconds(5)).await;
    let context = PickContext { now: Instant::now(), affinity: None, tried: &[], copyable: true };
    let mut pick = one.pick(&cluster, &context).unwrap();
    assert_ne!(number(&pick), 2, "the request itself goes to an endpoint that works");
    let mut trial = pick.take_trial().unwrap();
    assert_eq!(number(&trial), 2);
    assert!(one.pick(&cluster, &context).unwrap().take_trial().is_none(), "one at a time");
    trial.record(OK, Instant::now());
    assert_eq!(health(&cluster, 1), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn each_ejected_endpoint_waits_a_second_for_a_copy_on_its_own_account() {
    let cluster = cluster_of(6, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    advance(Duration::from_millis(900)).await;
    fail(&mut one, &cluster, 2, UNAVAILABLE, 5);
    // 1.1 s after the first ejection and 0.2 s after the second one; nothing could be copied so far.
    advance(Duration::from_millis(5200)).await;
    let _first = pick_of(&mut one, &cluster, 1);
    assert_eq!(health(&cluster, 1), Health::Returning);
    assert_eq!(used(&mut one, &cluster), [3, 4, 5, 6], "a copy may still come for the second");
    advance(seconds(1)).await;
    assert_eq!(number(&pick_of(&mut one, &cluster, 2)), 2);
}

#[tokio::test(start_paused = true)]
async fn answers_to_requests_from_before_an_ejection_change_nothing() {
    let cluster = cluster_of(4, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    let (mut late_good, mut late_bad) = (pick_of(&mut one, &cluster, 1), pick_of(&mut one, &cluster, 1));
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    let until = endpoint(&cluster, 0).ejected_until();
    advance(seconds(1)).await;
    late_good.record(OK, Instant::now());
    late_bad.record(UNAVAILABLE, Instant::now());
    assert_eq!((health(&cluster, 0), endpoint(&cluster, 0).ejected_until()), (Health::Ejected, until));
}

#[tokio::test(start_paused = true)]
async fn ejections_grow_up_to_the_longest_and_are_forgotten_in_good_times() {
    let outlier_detection = OutlierDetection { max_ejection: seconds(12), ..OutlierDetection::default() };
    let cluster = cluster_of(2, ClusterPolicy { outlier_detection, ..ClusterPolicy::default() });
    let mut one = Balancers::new(0, 1);
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let length = endpoint(&cluster, 0).ejected_until().unwrap() - Instant::now();
        lengths.push(length.as_secs());
        advance(length + seconds(1)).await;
        pick_of(&mut one, &cluster, 1).record(UNAVAILABLE, Instant::now());
    }
    assert_eq!(lengths, [5, 10, 12, 12]);
    assert_eq!(endpoint(&cluster, 0).ejections(), 5);

    advance(seconds(13)).await;
    pick_of(&mut one, &cluster, 1).record(OK, Instant::now());
    advance(seconds(3 * 60)).await;
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    assert_eq!(endpoint(&cluster, 0).ejections(), 3, "five, less one for each minute, and this one");
    advance(seconds(3600)).await;
    pick_of(&mut one, &cluster, 1).record(OK, Instant::now());
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    assert_eq!(endpoint(&cluster, 0).ejections(), 1, "all is forgotten");
}

#[tokio::test(start_paused = true)]
async fn at_most_half_are_ejected_and_never_the_last_usable_one() {
    for (endpoints, expected) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (9, 4)] {
        let cluster = cluster_of(endpoints, ClusterPolicy::default());
        let mut one = Balancers::new(0, 1);
        for _ in 0..20 * usize::from(endpoints) {
            pick(&mut one, &cluster).unwrap().record(UNAVAILABLE, Instant::now());
        }
        let ejected =
            (0..usize::from(endpoints)).filter(|&at| health(&cluster, at) == Health::Ejected).count();
        assert_eq!(ejected, expected, "of {endpoints}");
    }
    let all = OutlierDetection { max_ejected_percent: 100, ..OutlierDetection::default() };
    let none = OutlierDetection { max_ejected_percent: 0, ..OutlierDetection::default() };
    for (outlier_detection, expected) in [(all, 3), (none, 0)] {
        let cluster = cluster_of(4, ClusterPolicy { outlier_detection, ..ClusterPolicy::default() });
        let mut one = Balancers::new(0, 1);
        for _ in 0..80 {
            pick(&mut one, &cluster).unwrap().record(UNAVAILABLE, Instant::now());
        }
        let ejected = (0..4).filter(|&at| health(&cluster, at) == Health::Ejected).count();
        assert_eq!(ejected, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_last_resort_a_good_answer_takes_an_ejected_endpoint_back() {
    let cluster = cluster_of(2, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    fail(&mut one, &cluster, 1, UNAVAILABLE, 5);
    endpoint(&cluster, 1).set_check_failed(true);
    cluster.touch();
    assert_eq!(used(&mut one, &cluster), [1, 2], "all that are ready");
    pick_of(&mut one, &cluster, 1).record(OK, Instant::now());
    assert_eq!((health(&cluster, 0), used(&mut one, &cluster)), (Health::Healthy, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_time_out_ejects_a_silent_endpoint_at_once_and_one_that_answers_others_after_two() {
    let cluster = cluster_of(4, ClusterPolicy::default());
    let mut one = Balancers::new(0, 1);
    advance(seconds(10)).await;
    let mut waits = pick_of(&mut one, &cluster, 1);
    advance(seconds(2)).await;
    waits.record(Outcome::TimedOut, Instant::now());
    assert_eq!(health(&cluster, 0), Health::Ejected, "it answered nothing for two seconds");

    for round in 1..=2 {
        let mut slow = pick_of(&mut one, &cluster, 2);
        advance(seconds(1)).await;
        if round == 1 {
            pick_of(&mut one, &cluster, 2).record(OK, Instant::now());
        } else {
            pick_of(&mut one, &cluster, 2).record(UNAVAILABLE, Instant::now());
        }
        advance(seconds(1)).await;
        slow.record(Outcome::TimedOut, Instant::now());
        let expected = if round == 1 { Health::Healthy } else { Health::Ejected };
        assert_eq!(health(&cluster, 1), expected, "round {round}");
    }
}

/// Requests at an even pace; the first endpoint hangs from the tenth second on, the response time-out is two seconds.
#[tokio::test(start_paused = true)]
async fn a_hung_endpoint_gets_nothing_new_three_seconds_after_the_first_time_out() {
    for gap in [1, 7, 50, 250, 1000, 4000] {
        let cluster = cluster_of(4, ClusterPolicy::default());
        let mut all = [Balancers::new(0, 2), Balancers::new(1, 2)];
        let began = Instant::now();
        let mut hanging = VecDeque::<(Duration, Pick)>::new();
        let (mut first_time_out, mut last_on_it) = (None, Duration::ZERO);
        for step in 0.. {
            let at = began.elapsed();
            if first_time_out.is_some_and(|first| at > first + seconds(10)) {
                break;
            }
            while let Some((_, mut pick)) = hanging.pop_front_if(|(until, _)| *until <= at) {
                pick.record(Outcome::TimedOut, Instant::now());
                first_time_out.get_or_insert(at);
            }
            let mut pick = pick(&mut all[step % 2], &cluster).unwrap();
            if number(&pick) != 1 || at < seconds(10) {
                pick.record(OK, Instant::now());
            } else {
                // After the ejection there are trials; they are another matter.
                last_on_it = if pick.endpoint().ejections() == 0 { at } else { last_on_it };
                hanging.push_back((at + seconds(2), pick));
            }
            advance(Duration::from_millis(gap)).await;
        }
        let first = first_time_out.unwrap();
        assert!(endpoint(&cluster, 0).ejections() > 0, "one request each {gap} ms");
        assert!(last_on_it < first + seconds(3), "one request each {gap} ms: {first:?}, {last_on_it:?}");
    }
}
