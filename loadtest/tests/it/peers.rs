//! `peers` and `churn` on the command line, as far as they go without a measurement.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

fn loadtest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan-loadtest"));
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn the_cases_are_listed() {
    let output = loadtest(&["peers", "--case", "list"]).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for case in ["small", "handshakes", "h2c", "idle-tls"] {
        assert!(said.lines().any(|line| line.starts_with(case)), "{case} is not in {said}");
    }
}

#[test]
fn an_unknown_case_shows_those_that_there_are() {
    let output = loadtest(&["peers", "--case", "tiny"]).output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("no case \"tiny\"; there are small, 1k"), "{said}");
}

#[test]
fn without_python_it_says_what_to_install() {
    let cache = tempfile::tempdir().unwrap();
    let output = loadtest(&["peers", "--only", "haproxy", "--case", "small"])
        .env("PORTOLAN_CACHE", cache.path())
        .env("PATH", cache.path())
        .output()
        .unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "{said}");
    // A machine with one core, or with few open files, is told that first.
    let expected = ["python3 is not on the PATH: install python3", "needs two cores", "open files"];
    assert!(expected.iter().any(|expected| said.contains(expected)), "{said}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let output =
        loadtest(&["peers", "--only", "portolan", "--portolan", "/no/such/portolan"]).output().unwrap();
    let said = said(&output);
    let expected = ["--portolan /no/such/portolan is not there", "needs two cores", "open files"];
    assert!(!output.status.success() && expected.iter().any(|it| said.contains(it)), "{said}");
}

#[test]
fn churn_keeps_its_rate_and_leaves_every_endpoint_ready() {
    let folder = tempfile::tempdir().unwrap();
    let output = loadtest(&["churn", "--service", "orders", "--rate", "200", "--duration", "500ms"])
        .arg("--folder")
        .arg(folder.path())
        .args(["--endpoint", "127.0.0.1:7001,127.0.0.1:7002", "--endpoint", "127.0.0.1:7003"])
        .output()
        .unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let changes: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!((20..=101).contains(&changes), "{said}");
    let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("ready: true") && text.contains("service-name: orders"), "{text}");
    }
}

#[test]
fn who_is_tethered_ends_with_its_starter() {
    let program = env!("CARGO_BIN_EXE_portolan-loadtest");
    let script = format!("'{program}' tethered $$ -- sleep 60 & echo $!; wait");
    let mut starter = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(starter.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = format!("/proc/{}/stat", line.trim());
    let until = |condition: &dyn Fn(&str) -> bool| {
        let begin = Instant::now();
        while !condition(&fs::read_to_string(&status).unwrap_or_default()) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", fs::read_to_string(&status));
            std::thread::yield_now();
        }
    };
    until(&|stat| stat.contains("(sleep)"));
    starter.kill().unwrap();
    starter.wait().unwrap();
    // Whoever inherits it may leave it unburied.
    until(&|stat| stat.is_empty() || stat.contains(") Z "));

    let output = loadtest(&["tethered", "1", "--", "sleep", "60"]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("process 1 is gone"), "{}", said(&output));
}
