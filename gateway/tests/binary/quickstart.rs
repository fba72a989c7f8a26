//! `portolan quickstart --demo`: what a newcomer sees first.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use crate::gateway::portolan;
use crate::http::fetch;

#[test]
fn the_demonstration_serves_without_a_failure_while_it_scales_and_breaks() {
    let mut child = portolan()
        .args(["quickstart", "--demo", "--steps", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test was built");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.find(|line| line.contains("/orders/7")).expect("the page with the URLs is printed");
    let authority = url.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let edge: SocketAddr = authority.parse().unwrap();

    let seen = std::thread::spawn(move || {
        let mut names = BTreeSet::new();
        // The gateway refuses connections once the demonstration is over.
        while let Ok(answer) = fetch(edge, "/orders/7") {
            if answer.head.is_empty() {
                break;
            }
            assert_eq!(answer.status, 200, "{} {}", answer.head, answer.body);
            names.insert(answer.body.split(' ').next().unwrap_or_default().to_owned());
        }
        names
    });
    let said: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    for word in ["scale up:", "break:", "repair:", "scale down:"] {
        assert!(said.iter().any(|line| line.contains(word)), "{word} in {said:?}");
    }
    let names = seen.join().unwrap();
    assert!(names.len() >= 4, "requests went to all endpoints that there ever were: {names:?}");
}
