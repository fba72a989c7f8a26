//! What is said to somebody who made a mistake.

use std::net::TcpListener;

use crate::gateway::{free, output, portolan};

#[test]
fn every_wrong_setting_is_refused_with_its_name_its_value_and_what_is_expected() {
    let table: &[(&[&str], &str)] = &[
        (&["--workers", "0"], "flag --workers: \"0\" cannot be used: auto or a number from 1 to 1024"),
        (
            &["--listen", "8080"],
            "flag --listen: \"8080\" cannot be used: an address and a port such as 0.0.0.0:8080",
        ),
        (&["--listen-cluster", "nowhere:80"], "flag --listen-cluster: \"nowhere:80\" cannot be used"),
        (&["--status", "x"], "flag --status"),
        (&["--admin", "x"], "flag --admin"),
        (&["--expose", "some"], "flag --expose: \"some\" cannot be used: one of annotated, all"),
        (&["--access-log", "loud"], "one of off, errors, sampled, all"),
        (&["--log-format", "xml"], "one of text, json"),
        (&["--balance", "random"], "round-robin or least-connection"),
        (&["--drain-delay", "10"], "a time with its unit is expected"),
        (&["--connect-timeout", "0s"], "longer than 0"),
        (&["--trusted-proxies", "all"], "a network such as 10.0.0.0/8"),
        (&["--retries", "9"], "a number from 0 to 2"),
        (&["--retry-budget", "200%"], "0% to 100%"),
        (&["--namespaces", "Shop"], "\"Shop\" is not a name"),
        (&["--via-name", "a b"], "is not a name"),
        (
            &["--listen-tls", "127.0.0.1:1"],
            "listen-tls 127.0.0.1:1 has no certificate: name the files with one and its private key by tls-cert and \
             tls-key",
        ),
        (
            &["--tls-cert", "a.pem"],
            "tls-cert a.pem has no key: name the file with its private key by tls-key",
        ),
        (&["--tls-key", "a.pem"], "tls-key a.pem has no certificate: name the file with it by tls-cert"),
        (&["--max-headers", "0"], "a number from 1 to 100"),
    ];
    for (flags, expected) in table {
        let run = output(&[&["run", "--files", "/tmp"], *flags].concat());
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(expected), "{flags:?} should say {expected:?}, said: {said}");
    }
}

#[test]
fn an_unknown_flag_or_key_is_answered_with_the_nearest() {
    let run = output(&["run", "--lisen", "127.0.0.1:1"]);
    assert!(String::from_utf8_lossy(&run.stderr).contains("--listen"));
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("portolan.yaml");
    std::fs::write(&config, "acces-log: all\n").unwrap();
    let run = output(&["run", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("key acces-log in") && said.contains("did you mean access-log?"), "{said}");
    let run = portolan().args(["run"]).env("PORTOLAN_WORKERS", "many").output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("environment variable PORTOLAN_WORKERS: \"many\" cannot be used"), "{said}");
}

#[test]
fn a_taken_port_is_refused_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--listen-cluster", "--admin", "--status"] {
        let [a, b, c, d] = [free(), free(), free(), free()].map(|address| address.to_string());
        let mut args = vec!["run", "--files", folder];
        for (name, value) in [("--listen", &a), ("--listen-cluster", &b), ("--admin", &c), ("--status", &d)] {
            args.extend([name, if name == flag { &address } else { value }]);
        }
        let run = output(&args);
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{flag}: {said}");
        assert!(said.contains(&address), "{flag} should name {address}: {said}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_told_at_once() {
    let run = output(&["run", "--files", "/nonexistent/manifests", "--listen", &free().to_string()]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("/nonexistent/manifests"), "{said}");
}

#[test]
fn admin_pages_beyond_loopback_need_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let run = output(&["run", "--files", folder.path().to_str().unwrap(), "--admin", "0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("--admin-token-file"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_served_is_refused_with_its_flag_and_file_by_run_and_check() {
    let folder = tempfile::tempdir().unwrap();
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let [one, other] =
        [(); 2].map(|()| rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap());
    let key = one.signing_key.serialize_pem();
    let (good, good_key) = (file("tls.crt", &one.cert.pem()), file("tls.key", &key));
    let (other_key, empty) = (file("other.key", &other.signing_key.serialize_pem()), file("empty", ""));
    let cut = file("cut.key", &key[..key.len() / 2]);
    let gone = folder.path().join("gone").to_str().unwrap().to_owned();
    let table = [
        (&gone, &good_key, format!("--tls-cert {gone} cannot be read")),
        (&good, &gone, format!("--tls-key {gone} cannot be read")),
        (&empty, &good_key, format!("--tls-cert {empty}: it has no certificate")),
        (&good, &empty, format!("--tls-key {empty}: it has no private key")),
        (&good, &cut, format!("--tls-key {cut}: ")),
        (
            &good,
            &other_key,
            format!("--tls-key {other_key}: the private key is not that of the first certificate"),
        ),
    ];
    let manifests = manifests.to_str().unwrap();
    for (certificate, key_file, expected) in &table {
        let tls = ["--listen-tls", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key_file];
        for command in [&["run", "--files", manifests][..], &["check", manifests][..]] {
            let run = output(&[command, &tls[..]].concat());
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(1), "{said}");
            assert!(said.contains(expected), "should say {expected:?}, said: {said}");
            assert!(!said.contains(&key.lines().nth(1).unwrap()[..16]), "the key is shown: {said}");
        }
    }
    let run = output(&["check", manifests, "--tls-cert", &good, "--tls-key", &good_key]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
}
