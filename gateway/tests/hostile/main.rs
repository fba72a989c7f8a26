//! Hostile input, byte for byte, against the real binary: the cases are data (`cases/`), the judge is not the status
//! alone. What reached an endpoint is recorded, a next request on the same connection gets its own answer or none, and a
//! bystander who shares the connections to the endpoint never gets an answer that is not its own.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![allow(clippy::disallowed_types, reason = "the binary under test runs in real time")]

mod bystander;
mod case;
mod endpoint;
mod faults;
mod gateway;
mod notation;
mod trial;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use endpoint::Endpoint;
use gateway::Gateway;
use trial::Trial;

/// Trials under way at once; most of them wait.
const AT_ONCE: usize = 48;

#[test]
#[ignore = "a step of its own: cargo xtask test --only hostile"]
fn every_case_has_the_required_outcome_and_harms_nobody() {
    let cases = case::read(include_str!("cases/client.txt"));
    let endpoint = Endpoint::start();
    let gateway = Gateway::start(&[("ok", "ok.test, *.wild.test", &[endpoint.address])]);
    // Once before anything is counted, so that what stays open from the start is there.
    assert!(bystander::ask(gateway.edge, "first"), "the route serves");
    let files_before = gateway.open_files();
    let bystander = bystander::Bystander::start(gateway.edge);

    let trials: Vec<Trial<'_>> = cases.iter().flat_map(Trial::of).collect();
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number =
                        u32::try_from(trials.iter().position(|each| std::ptr::eq(each, trial)).unwrap())
                            .unwrap();
                    let fault = trial.run(number, gateway.edge, &endpoint).err();
                    verdicts.lock().unwrap().push((trial.case, trial.how(), fault));
                }
            });
        }
    });
    let (asked, harmed) = bystander.end();
    assert!(asked > 20, "the bystander asked {asked} times");
    assert_eq!(harmed, Vec::<String>::new(), "the bystander was harmed");
    gateway.is_well(files_before);
    report(&cases, verdicts.into_inner().unwrap());
}

fn report(cases: &[Case], verdicts: Vec<(&Case, &'static str, Option<String>)>) {
    let mut wrong = Vec::new();
    let mut known = 0;
    for case in cases {
        let faults: Vec<String> = verdicts
            .iter()
            .filter(|(each, _, _)| std::ptr::eq(*each, case))
            .filter_map(|(_, how, fault)| fault.as_ref().map(|fault| format!("{how}: {fault}")))
            .collect();
        match (&case.known_to_fail, faults.is_empty()) {
            (None, true) => {}
            (Some(_), false) => known += 1,
            (None, false) => wrong.push(format!("{} ({}): {}", case.id, case.what, faults.join("; "))),
            (Some(_), true) => wrong.push(format!("{} holds now: take its mark away", case.id)),
        }
    }
    println!("{} cases, {known} of them known to fail", cases.len());
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
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
