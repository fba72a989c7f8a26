//! A pod whose process hangs (SIGSTOP): the kernel accepts connections and requests for it, and nothing answers.
//!
//! The pods have no readiness probe: Kubernetes would take a hung pod out with it after some seconds, and what is
//! measured here is Portolan's own finding out. kube-proxy, which relies on the probe, has nothing to go by.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{LATENCY, call, stop, victim};
use crate::app::{App, Blueprint};
use crate::figures::time;
use crate::step::{self, Step};
use crate::traffic::{Both, Entry, Traffic, by_upstream};
use crate::wait;

/// Longer than this is a wait.
const LONG: Duration = Duration::from_secs(1);
/// So long after it hangs, or after the first time-out, nobody must meet it any more: in the short form, on any machine,
/// and in the full form, which holds the promise to its word.
const FOUND_OUT: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(3)];
/// A request that took longer met the pod. In the short form a busy machine may be the reason of a shorter wait.
const MET: [Duration; 2] = [Duration::from_secs(4), LONG];
/// How long it hangs, in the short and in the full form: beyond the first ejection and the trial at its end.
const HANGS: [Duration; 2] = [Duration::from_secs(16), Duration::from_secs(40)];

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn a_hung_pod_with_active_checks() {
    step::run(4, "self-healing", |step| {
        // Passive ejection is off: what finds out is the check.
        let app = app("hung-checked")
            .annotate("portolan.dev/health-path", "/healthz")
            .annotate("portolan.dev/health-interval", "1s")
            .annotate("portolan.dev/health-timeout", "500ms")
            .annotate("portolan.dev/unhealthy-threshold", "2")
            .annotate("portolan.dev/outlier-failures", "0")
            .create(step)?;
        let hang = hang(step, &app)?;
        hang.note(step, "hung, active check of 1 s × 2");
        hang.nobody_meets_it_from(step, hang.stopped)
    });
}

#[test]
#[ignore = "needs a node: cargo xtask test --only e2e"]
fn a_hung_pod_without_checks() {
    step::run(4, "self-healing", |step| {
        let app = app("hung-unchecked").annotate("portolan.dev/response-timeout", "2s").create(step)?;
        let hang = hang(step, &app)?;
        hang.note(step, "hung, passive, response time-out of 2 s");
        let timed_out = hang.while_stopped(&hang.both.portolan).into_iter().filter(|it| !it.answered);
        let first = timed_out.map(|it| it.ended).min().context("no request was timed out")?;
        hang.nobody_meets_it_from(step, first)
    });
}

fn app(name: &str) -> Blueprint {
    Blueprint::named(name).without_probe().replicas(3).latency(LATENCY)
}

/// A pod that hung under load, and went on.
struct Hang {
    both: Both,
    pod: String,
    stopped: Instant,
    went_on: Instant,
    /// From then on until it answered through Portolan again.
    taken_back: Duration,
}

/// A process that does not run. Dropping it lets it go on.
struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed with its pod meanwhile.
        let _went_on = kill_process(self.0, Signal::CONT).is_ok();
    }
}

fn hang(step: &Step, app: &App) -> Result<Hang> {
    let callers = call(step, app, 0.0)?;
    let pod = victim(app)?;
    let process = pod.process(step.cluster, "echo")?;
    kill_process(process, Signal::STOP)?;
    let (stopped, guard) = (Instant::now(), Stopped(process));
    wait::look(HANGS[usize::from(step.plan.full)]);
    let went_on = Instant::now();
    drop(guard);
    let taken_back = wait::until("an answer of the pod that hung", Duration::from_secs(60), || {
        let answers = by_upstream(&callers.portolan.book().due_between(went_on, Instant::now()));
        Ok(answers.contains_key(&pod.name).then(|| went_on.elapsed()))
    })?;
    Ok(Hang { both: stop(step, callers)?, pod: pod.name, stopped, went_on, taken_back })
}

impl Hang {
    fn note(&self, step: &mut Step, fault: &str) {
        let waited = |traffic: &Traffic| {
            let long = self.while_stopped(traffic).into_iter().filter(is_long);
            let due: Vec<_> = long.map(|it| it.due).collect();
            match due.iter().max() {
                Some(last) => {
                    format!("{}, the last {} after the stop", due.len(), time(*last - self.stopped))
                }
                None => "0".to_owned(),
            }
        };
        let failed = |traffic: &Traffic| self.while_stopped(traffic).iter().filter(|it| !it.answered).count();
        let Both { portolan, kube_proxy } = &self.both;
        let (lasted, asked) = (self.went_on - self.stopped, self.while_stopped(portolan).len());
        step.figures.beside(
            &format!("{fault}: waited over 1 s, of {asked} in {}", time(lasted)),
            waited(portolan),
            waited(kube_proxy),
        );
        step.figures.beside(&format!("{fault}: failed"), failed(portolan), failed(kube_proxy));
        step.figures.note(&format!("{fault}: taken back after"), time(self.taken_back));
    }

    /// What was due while it hung.
    fn while_stopped(&self, traffic: &Traffic) -> Vec<Entry> {
        traffic.book.due_between(self.stopped, self.went_on)
    }

    /// An error if a request through Portolan that was due well after this failed, waited, or was answered by the pod.
    fn nobody_meets_it_from(&self, step: &Step, from: Instant) -> Result<()> {
        let form = usize::from(step.plan.full);
        let from = from + FOUND_OUT[form];
        ensure!(from < self.went_on, "the pod did not hang long enough to tell");
        let later = self.both.portolan.book.due_between(from, self.went_on);
        ensure!(!later.is_empty(), "no request was due later than that");
        let met = later.iter().filter(|it| {
            !it.answered || it.ended - it.due > MET[form] || it.upstream.as_ref() == Some(&self.pod)
        });
        let met: Vec<_> = met.map(|it| time(it.due - self.stopped)).collect();
        ensure!(
            met.is_empty(),
            "{} of {} requests met the hung pod, {met:?} after it stopped; first not to: {}\n{}",
            met.len(),
            later.len(),
            time(from - self.stopped),
            self.both.portolan.report
        );
        Ok(())
    }
}

fn is_long(entry: &Entry) -> bool {
    entry.ended - entry.due > LONG
}
