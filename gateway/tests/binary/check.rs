//! `portolan check DIR`.

use crate::gateway::output;
use crate::run::manifest;

fn check(files: &[(&str, String)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let run = output(&["check", folder.path().to_str().unwrap()]);
    (run.status.code(), String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
}

#[test]
fn sound_manifests_pass_and_are_counted() {
    let (code, said) = check(&[("a.yaml", manifest("orders", "", &["127.0.0.1:9".parse().unwrap()]))]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 endpoints, 0 findings"), "{said}");
}

#[test]
fn what_cannot_be_honoured_fails_and_names_object_and_field() {
    let endpoint = ["127.0.0.1:9".parse().unwrap()];
    let table = [
        (manifest("a", "    portolan.dev/path: \"orders\"\n", &endpoint), "portolan.dev/path"),
        (manifest("a", "    portolan.dev/port: \"grpc\"\n", &endpoint), "portolan.dev/port"),
        (manifest("a", "    portolan.dev/balance: \"loudest\"\n", &endpoint), "portolan.dev/balance"),
        ("kind: Service\nmetadata: {name: [".to_owned(), "a.yaml"),
    ];
    for (text, expected) in table {
        let (code, said) = check(&[("a.yaml", text)]);
        assert_eq!(code, Some(1), "{expected}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let host = "    portolan.dev/host: \"shop.example.com\"\n";
    let (code, said) =
        check(&[("a.yaml", manifest("a", host, &endpoint)), ("b.yaml", manifest("b", host, &endpoint))]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("default/a") && said.contains("default/b"), "{said}");
}

#[test]
fn what_is_no_folder_is_told() {
    let run = output(&["check", "/nonexistent"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("/nonexistent is not a folder"));
}
