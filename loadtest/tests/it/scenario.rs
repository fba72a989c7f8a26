//! `run` on the command line: scenarios, the table, JSON and the page.

use std::path::Path;
use std::process::{Command, Output};

use portolan_loadtest::upstream::Upstream;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan-loadtest")).arg("run").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scenario(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_scenario_is_sent_and_options_beside_it_win() {
    let upstream = Upstream::named("a").start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let url = format!("http://{}/orders", upstream.address());
    let output = run(&[
        &url,
        "--scenario",
        &scenario("shop.toml"),
        "--rate",
        "400",
        "--duration",
        "500ms",
        "--warm-up",
        "0s",
        "--json",
        "--html",
        page.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((measured["answered"].as_u64(), measured["connections"].as_u64()), (Some(200), Some(64)));
    assert!(measured["connections_opened"].as_u64().unwrap() > 0, "some have connections of their own");
    assert_eq!(upstream.switches().received(), 200);
    assert!(std::fs::read_to_string(page).unwrap().contains("<p>An API behind a gateway"));
    assert!(output.stderr.is_empty(), "no progress where no terminal is: {}", text(&output.stderr));
}

#[test]
fn without_json_it_prints_a_table() {
    let upstream = Upstream::named("a").start().unwrap();
    let url = format!("http://{}/", upstream.address());
    let output =
        run(&[&url, "--scenario", &scenario("small.toml"), "--duration", "200ms", "--warm-up", "0s"]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("closed loop") && said.contains("p99.9"), "{said}");
}

#[test]
fn a_misspelt_key_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("typo.toml");
    std::fs::write(&file, "conections = 4\n[[request]]\npath = \"/\"\n").unwrap();
    let output = run(&["http://127.0.0.1:1/", "--scenario", file.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("typo.toml") && said.contains("conections") && said.contains("connections"),
        "{said}"
    );
}
