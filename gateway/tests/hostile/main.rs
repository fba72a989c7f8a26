//! Hostile input, byte for byte, against the real binary: the cases are data (`cases/`), and the judge is not the status
//! alone.
//!
//! Every byte that reaches an endpoint is recorded, read strictly, compared with what the client meant, and shown to
//! four independent readers of HTTP. A next request on the same connection gets its own answer or none. Bystanders who
//! share the connections to the endpoint never get an answer that is not their own. Each answer has its line in the
//! access log. In the end the process has no more files and memory than before, and has not panicked.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![allow(clippy::disallowed_types, reason = "the binary under test runs in real time")]

mod bystander;
mod case;
mod endpoint;
mod faults;
mod gateway;
mod judge;
mod mutations;
mod notation;
mod readers;
mod scenes;
mod sequences;
mod trial;
mod wire;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bystander::Bystanders;
use case::{Case, Required};
use endpoint::Endpoint;
use gateway::{Gateway, Service, until};
use readers::Readers;
use trial::{Cut, Seen, Trial};

/// Trials under way at once; most of them wait.
const AT_ONCE: usize = 64;
/// Peers that are believed, and the first addresses of those and of all others.
const TRUSTED: &str = "127.200.0.0/16";
const FIRST_TRUSTED: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
/// Short, since some cases wait for them; longer than a busy machine takes for the others.
const TIME_OUTS: [&str; 8] = [
    "--request-head-timeout",
    "4s",
    "--client-idle-timeout",
    "4s",
    "--stream-idle-timeout",
    "4s",
    "--upstream-idle-timeout",
    "1s",
];

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn every_case_has_the_required_outcome_and_harms_nobody() {
    let mut cases = case::read(include_str!("cases/client.txt"));
    cases.extend(case::read(include_str!("cases/further.txt")));
    cases.extend(sequences::cases());
    cases.extend(mutations::cases());
    let readers = Readers::install().unwrap();
    let endpoint = Endpoint::start();
    let services = [Service::new("ok", "ok.test, *.wild.test", endpoint.address)];
    let flags = [&TIME_OUTS[..], &["--trusted-proxies", TRUSTED]].concat();
    let gateway = Gateway::start(&services, &flags);
    let bystanders = Bystanders::start(gateway.edge);

    // The first of all counts as well, but what the process has after it is the measure for the others.
    let mut trials = run(&gateway, trials(&cases, Cut::Whole, 0));
    let (files, memory) = (gateway.open_files(), gateway.memory_kib());
    for cut in [Cut::OneByOne, Cut::Random(1), Cut::Random(2)] {
        let before = trials.len();
        trials.extend(run(&gateway, self::trials(&cases, cut, before)));
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let account = bystanders.end();
    gateway.is_as_before(files, memory);
    let known = cases.iter().filter(|case| case.known_to_fail.is_some()).count();
    println!(
        "{} cases ({known} known to fail) in {} trials; bystanders asked {} times, the slowest answer took {:?}; memory {memory} KiB, then {}",
        cases.len(),
        trials.len(),
        account.asked,
        account.slowest,
        gateway.memory_kib()
    );
    let log = gateway.end();
    until("the connections to the endpoint have ended", || endpoint.open() == 0);
    let known_to_fail = trials.iter().filter(|(trial, _)| trial.case.known_to_fail.is_some());
    let apart: HashSet<_> = known_to_fail.map(|(trial, _)| trial.address.to_string()).collect();
    let mut streams = endpoint.streams();
    streams.retain(|stream| !stream.is_empty() && !stream.is_of(&apart));
    let disagreements = readers.disagreements(&streams).unwrap();

    let verdicts = trials.iter().map(|(trial, seen)| {
        let client = trial.address.to_string();
        let lines = log.get(&client).map_or(&[][..], Vec::as_slice);
        (trial, judge::judge(trial, seen, &endpoint.from(&client), lines).err())
    });
    let mut wrong = wrong(&cases, &verdicts.collect::<Vec<_>>());
    let nobody = endpoint.from("nobody");
    wrong.extend(nobody.iter().map(|arrival| format!("a request of nobody: {arrival:?}")));
    wrong.extend(account.harmed.iter().map(|harm| format!("a bystander was harmed: {harm}")));
    wrong.extend(disagreements.iter().map(|found| format!("of {} streams, {found}", streams.len())));
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One trial of each case, from addresses of their own, of which so many are taken.
fn trials<'a>(cases: &'a [Case], cut: Cut, taken: usize) -> Vec<Trial<'a>> {
    let cases = cases.iter().filter(|case| cut == Cut::Whole || !case.whole_only);
    cases
        .zip(u32::try_from(taken).unwrap()..)
        .map(|(case, number)| {
            let first = if case.trusted { FIRST_TRUSTED } else { FIRST };
            let cut = if let Cut::Random(seed) = cut { Cut::Random(seed ^ u64::from(number)) } else { cut };
            Trial { case, cut, address: Ipv4Addr::from(u32::from(first) + number) }
        })
        .collect()
}

fn run<'a>(gateway: &Gateway, trials: Vec<Trial<'a>>) -> Vec<(Trial<'a>, Seen)> {
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, trial)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    trials.get(number).map(|trial| (number, trial))
                } {
                    let outcome = trial.run(gateway);
                    seen.lock().unwrap().insert(number, outcome);
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    let pairs = trials.into_iter().enumerate();
    pairs.map(|(number, trial)| (trial, seen.remove(&number).expect("each was run"))).collect()
}

/// What is wrong, case by case: those that fail, and those that are marked but hold.
fn wrong(cases: &[Case], verdicts: &[(&Trial<'_>, Option<String>)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let of_case = verdicts.iter().filter(|(trial, _)| std::ptr::eq(trial.case, case));
        let faults: Vec<_> =
            of_case.filter_map(|(trial, fault)| fault.as_ref().map(|fault| (trial.cut, fault))).collect();
        match (&case.known_to_fail, faults.is_empty()) {
            (None, true) | (Some(_), false) => {}
            (None, false) => {
                let cuts: Vec<_> = faults.iter().map(|(cut, _)| cut).collect();
                wrong.push(format!("{} ({}), {cuts:?}: {}", case.id, case.what, faults[0].1));
            }
            (Some(_), true) => wrong.push(format!("{} holds now: take its mark away", case.id)),
        }
    }
    wrong
}

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn no_row_of_the_catalogue_is_left_out_silently() {
    let cases = case::read(include_str!("cases/client.txt"));
    let mut rows: BTreeSet<String> = cases.iter().map(|case| case.row().to_owned()).collect();
    for line in include_str!("cases/elsewhere.txt").lines().filter(|line| !line.starts_with('#')) {
        let (id, reason) = line.split_once(" | ").unwrap();
        assert!(!reason.is_empty() && rows.insert(id.to_owned()), "{id}");
    }
    for (group, last) in [('A', 48), ('B', 21), ('C', 37), ('D', 21), ('E', 26), ('F', 26), ('G', 23)] {
        for number in 1..=last {
            let row = format!("{group}{number}");
            assert!(rows.remove(&row), "{row} is in neither file");
        }
    }
    assert!(rows.is_empty(), "no rows of the catalogue: {rows:?}");
}

#[test]
fn what_must_be_forwarded_says_what_the_endpoint_must_get() {
    for case in case::read(include_str!("cases/client.txt")) {
        for choice in &case.required {
            let last = choice.iter().rposition(|required| *required == Required::Forwarded);
            let said = last.is_none_or(|last| last < case.meant.len());
            assert!(said, "{}: say with `>` what {choice:?} must be", case.id);
        }
    }
}
