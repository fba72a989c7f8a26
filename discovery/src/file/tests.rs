//! The source on real folders, with awaited snapshots and findings.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use portolan_model::{Finding, Snapshot};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::source::Source;
use crate::store::{Discovered, Store};

fn manifest(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, annotations: {{portolan.dev/expose: \"true\"}}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [{address}]}}]
"
    )
}

struct Running {
    discovered: Discovered,
    source: JoinHandle<anyhow::Result<()>>,
    store: JoinHandle<()>,
    _translate: watch::Sender<Arc<TranslateConfig>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.source.abort();
        self.store.abort();
    }
}

fn run(dir: &Path) -> Running {
    let mut store = Store::new();
    let sink = store.sink("files", true);
    let discovered = store.subscribe();
    let (sender, translate) = watch::channel(Arc::new(TranslateConfig::files("default")));
    let source = tokio::spawn(FileSource::new(dir, translate).run(sink));
    Running { discovered, source, store: tokio::spawn(store.run()), _translate: sender }
}

/// Waits for a snapshot in which the clusters have these endpoints: `name=address name=…`.
async fn endpoints(running: &Running, expected: &str) {
    let shown = |snapshot: &Snapshot| {
        let clusters = snapshot.clusters.values().map(|cluster| {
            let addresses: Vec<_> = cluster.endpoints.iter().map(|it| it.key.address.to_string()).collect();
            format!("{}={}", cluster.id, addresses.join(","))
        });
        clusters.collect::<Vec<_>>().join(" ")
    };
    let mut snapshots = running.discovered.snapshots.clone();
    let found = snapshots.wait_for(|snapshot| shown(snapshot) == expected);
    let result = tokio::time::timeout(std::time::Duration::from_secs(10), found).await;
    assert!(result.is_ok(), "expected {expected}, have {}", shown(&running.discovered.snapshots.borrow()));
}

/// Waits for findings with these reasons, and returns them.
async fn findings(running: &Running, expected: &[&str]) -> Vec<Finding> {
    let mut findings = running.discovered.findings.clone();
    let is_expected =
        |findings: &Arc<Vec<Finding>>| findings.iter().map(|it| &*it.reason).eq(expected.iter().copied());
    let result =
        tokio::time::timeout(std::time::Duration::from_secs(10), findings.wait_for(is_expected)).await;
    match result {
        Ok(found) => found.unwrap().to_vec(),
        Err(_) => panic!("expected {expected:?}, have {:?}", running.discovered.findings.borrow()),
    }
}

#[tokio::test]
async fn a_folder_is_followed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("orders.yaml"), manifest("orders", "127.0.0.1")).unwrap();
    fs::write(dir.path().join("README.md"), "not a manifest").unwrap();
    let mut running = run(dir.path());
    running.discovered.ready().await;
    endpoints(&running, "default/orders:80=127.0.0.1:8080").await;

    // In place, in a new folder, renamed over, removed.
    fs::write(dir.path().join("orders.yaml"), manifest("orders", "127.0.0.2")).unwrap();
    endpoints(&running, "default/orders:80=127.0.0.2:8080").await;
    fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    fs::write(dir.path().join("deep/er/pay.json.tmp"), manifest("pay", "127.0.0.9")).unwrap();
    fs::rename(dir.path().join("deep/er/pay.json.tmp"), dir.path().join("deep/er/pay.yml")).unwrap();
    endpoints(&running, "default/orders:80=127.0.0.2:8080 default/pay:80=127.0.0.9:8080").await;
    fs::write(dir.path().join("orders.new"), manifest("orders", "127.0.0.3")).unwrap();
    fs::rename(dir.path().join("orders.new"), dir.path().join("orders.yaml")).unwrap();
    endpoints(&running, "default/orders:80=127.0.0.3:8080 default/pay:80=127.0.0.9:8080").await;
    fs::remove_file(dir.path().join("orders.yaml")).unwrap();
    endpoints(&running, "default/pay:80=127.0.0.9:8080").await;
}

#[tokio::test]
async fn a_config_map_swap_is_one_change() {
    let dir = TempDir::new().unwrap();
    let version = |name: &str, address: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("orders.yaml"), manifest("orders", address)).unwrap();
        std::os::unix::fs::symlink(name, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    version("..2024_1", "127.0.0.1");
    std::os::unix::fs::symlink("..data/orders.yaml", dir.path().join("orders.yaml")).unwrap();
    let running = run(dir.path());
    endpoints(&running, "default/orders:80=127.0.0.1:8080").await;
    let generation = running.discovered.snapshots.borrow().generation;
    version("..2024_2", "127.0.0.2");
    endpoints(&running, "default/orders:80=127.0.0.2:8080").await;
    assert_eq!(running.discovered.snapshots.borrow().generation, generation + 1);
    assert!(running.discovered.findings.borrow().is_empty());
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_objects_and_hurts_no_other() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), manifest("a", "127.0.0.1")).unwrap();
    fs::write(dir.path().join("b.yaml"), manifest("b", "127.0.0.2")).unwrap();
    let running = run(dir.path());
    endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.2:8080").await;

    let half = manifest("a", "127.0.0.7");
    fs::write(dir.path().join("a.yaml"), &half[..half.len() - 14]).unwrap();
    let found = findings(&running, &["UnreadableFile"]).await;
    assert_eq!(found[0].resource.to_string(), format!("File {}", dir.path().join("a.yaml").display()));
    assert!(found[0].field.starts_with("line "), "{}", found[0]);
    fs::write(dir.path().join("b.yaml"), manifest("b", "127.0.0.3")).unwrap();
    endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.3:8080").await;

    fs::write(dir.path().join("a.yaml"), &half).unwrap();
    endpoints(&running, "default/a:80=127.0.0.7:8080 default/b:80=127.0.0.3:8080").await;
    findings(&running, &[]).await;

    fs::write(dir.path().join("a.yaml"), b"\xff\xfe not text").unwrap();
    findings(&running, &["UnreadableFile"]).await;
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    endpoints(&running, "default/b:80=127.0.0.3:8080").await;
    findings(&running, &[]).await;
}

#[tokio::test]
async fn a_file_that_is_being_rewritten_keeps_what_it_said() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.yaml");
    let begin = manifest("a", "127.0.0.1");
    let end = format!("---\n{}", manifest("b", "127.0.0.2"));
    fs::write(&path, format!("{begin}{end}")).unwrap();
    let running = run(dir.path());
    let all = "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.2:8080";
    endpoints(&running, all).await;
    let generation = running.discovered.snapshots.borrow().generation;

    // As a shell does it: the file is emptied, and filled later, here in two parts.
    let mut file = fs::File::create(&path).unwrap();
    let found = findings(&running, &["HalfWrittenFile"]).await;
    assert!(found[0].message.contains("Service default/b"), "{}", found[0]);
    file.write_all(begin.as_bytes()).unwrap();
    let mut told = running.discovered.findings.clone();
    let is_begun = |findings: &Arc<Vec<Finding>>| !findings[0].message.contains("EndpointSlice default/a-1");
    told.wait_for(is_begun).await.unwrap();
    file.write_all(end.as_bytes()).unwrap();
    drop(file);
    findings(&running, &[]).await;
    assert_eq!(running.discovered.snapshots.borrow().generation, generation, "nothing was withdrawn between");

    // If nothing more comes, it is meant.
    let begun = tokio::time::Instant::now();
    fs::write(&path, begin).unwrap();
    findings(&running, &["HalfWrittenFile"]).await;
    endpoints(&running, "default/a:80=127.0.0.1:8080").await;
    findings(&running, &[]).await;
    let taken = begun.elapsed();
    assert!(taken >= std::time::Duration::from_secs(2), "{taken:?}");
}

#[tokio::test]
async fn a_file_that_is_renamed_over_or_removed_counts_at_once() {
    let dir = TempDir::new().unwrap();
    let both = manifest("a", "127.0.0.1") + "---\n" + &manifest("b", "127.0.0.2");
    fs::write(dir.path().join("a.yaml"), both).unwrap();
    let mut running = run(dir.path());
    running.discovered.ready().await;
    let told = running.discovered.findings.clone();
    fs::write(dir.path().join(".a.tmp"), manifest("a", "127.0.0.1")).unwrap();
    fs::rename(dir.path().join(".a.tmp"), dir.path().join("a.yaml")).unwrap();
    endpoints(&running, "default/a:80=127.0.0.1:8080").await;
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    endpoints(&running, "").await;
    assert!(!told.has_changed().unwrap(), "{:?}", told.borrow());
}

#[tokio::test]
async fn what_cannot_be_looked_into_keeps_what_it_said() {
    let dir = TempDir::new().unwrap();
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("a.yaml"), manifest("a", "127.0.0.1")).unwrap();
    fs::write(dir.path().join("b.yaml"), manifest("b", "127.0.0.2")).unwrap();
    let running = run(dir.path());
    endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.2:8080").await;

    // A link to itself is there, but nobody can follow it: not even who may read everything.
    fs::rename(&below, dir.path().join(".away")).unwrap();
    std::os::unix::fs::symlink("below", &below).unwrap();
    fs::write(dir.path().join("b.yaml"), manifest("b", "127.0.0.3")).unwrap();
    let found = findings(&running, &["UnreadableFile"]).await;
    assert_eq!(found[0].resource.to_string(), format!("File {}", below.display()));
    endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.3:8080").await;

    fs::remove_file(&below).unwrap();
    endpoints(&running, "default/b:80=127.0.0.3:8080").await;
    findings(&running, &[]).await;
    fs::rename(dir.path().join(".away"), &below).unwrap();
    endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.3:8080").await;

    fs::set_permissions(&below, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&below).is_err() {
        findings(&running, &["UnreadableFile"]).await;
        endpoints(&running, "default/a:80=127.0.0.1:8080 default/b:80=127.0.0.3:8080").await;
    }
    fs::set_permissions(&below, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn links_that_lead_back_up_are_not_followed() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(dir.path().join("below/a.yaml"), manifest("a", "127.0.0.1")).unwrap();
    for (target, link) in [(".", "l1"), (".", "l2"), ("..", "below/up"), (".", "below/here")] {
        std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
    }
    let (objects, findings) = load(dir.path(), "default").unwrap();
    assert_eq!(objects.len(), 2);
    assert_eq!(findings, []);
}

#[test]
fn a_file_that_says_the_same_as_before_is_no_change() {
    let dir = TempDir::new().unwrap();
    let (path, other) = (dir.path().join("shop.yaml"), dir.path().join("shop.new"));
    let said = manifest("orders", "10.0.0.1");
    fs::write(&path, &said).unwrap();
    let mut folder = Folder::new(dir.path(), "default");
    let mut has_changed = || folder.scan().unwrap().has_changed;
    assert!(has_changed());
    // Written so shortly ago that it is read again.
    assert!(!has_changed());
    fs::write(&other, &said).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(!has_changed());
    fs::write(&path, manifest("orders", "10.0.0.2")).unwrap();
    assert!(has_changed());
    fs::write(&path, "kind: [").unwrap();
    assert!(has_changed());
    // It counts anew after it did not.
    fs::write(&path, manifest("orders", "10.0.0.2")).unwrap();
    assert!(has_changed());
    fs::remove_file(&path).unwrap();
    assert!(has_changed());
}

#[test]
fn findings_name_the_file() {
    let dir = TempDir::new().unwrap();
    let host = |name: &str| {
        manifest(name, "169.254.169.254")
            .replace("{portolan.dev", "{portolan.dev/host: a.example.com, portolan.dev")
    };
    fs::write(dir.path().join("a.yaml"), host("a")).unwrap();
    fs::write(dir.path().join("b.yaml"), host("b")).unwrap();
    fs::write(dir.path().join("c.yaml"), "{apiVersion: v1, kind: service, metadata: {name: c}}").unwrap();
    fs::write(
        dir.path().join("d.yaml"),
        manifest("d", "127.0.0.1").replace("service-name: d", "service-name: e"),
    )
    .unwrap();
    let findings = check(dir.path(), &TranslateConfig::files("default")).unwrap();
    for (reason, file) in [
        ("RefusedAddress", "a.yaml"),
        ("AlreadyClaimed", "b.yaml"),
        ("UnknownKind", "c.yaml"),
        ("UnknownService", "d.yaml"),
        ("NoEndpointSlices", "d.yaml"),
    ] {
        let file = format!("it stands in {}", dir.path().join(file).display());
        let is_told = |it: &&Finding| it.reason == reason && it.message.ends_with(&file);
        assert_eq!(findings.iter().filter(is_told).count(), 1, "{reason}: {findings:#?}");
    }
}

#[tokio::test]
async fn findings_of_the_source_name_the_file_that_it_is_now() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), manifest("a", "169.254.169.254")).unwrap();
    let running = run(dir.path());
    let found = findings(&running, &["RefusedAddress"]).await;
    assert!(found[0].message.ends_with("a.yaml"), "{}", found[0]);
    fs::rename(dir.path().join("a.yaml"), dir.path().join("z.yaml")).unwrap();
    let mut told = running.discovered.findings.clone();
    told.wait_for(|findings| findings.iter().all(|it| it.message.ends_with("z.yaml"))).await.unwrap();
    assert_eq!(told.borrow().len(), 1);
}

#[tokio::test]
async fn a_huge_file_is_not_read() {
    let dir = TempDir::new().unwrap();
    let huge = fs::File::create(dir.path().join("huge.yaml")).unwrap();
    huge.set_len(50 * 1024 * 1024).unwrap();
    fs::write(dir.path().join("b.yaml"), manifest("b", "127.0.0.2")).unwrap();
    let running = run(dir.path());
    endpoints(&running, "default/b:80=127.0.0.2:8080").await;
    let found = findings(&running, &["UnreadableFile"]).await;
    assert!(found[0].message.contains("52428800"), "{}", found[0]);
}

#[tokio::test]
async fn a_missing_folder_is_an_error_at_start_and_a_finding_later() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("manifests");
    let mut running = run(&missing);
    let error = (&mut running.source).await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("manifests cannot be read"), "{error:#}");
    drop(running);

    fs::create_dir(&missing).unwrap();
    fs::write(missing.join("a.yaml"), manifest("a", "127.0.0.1")).unwrap();
    let running = run(&missing);
    endpoints(&running, "default/a:80=127.0.0.1:8080").await;
    fs::rename(&missing, dir.path().join("away")).unwrap();
    findings(&running, &["UnreadableFile"]).await;
    let mut sources = running.discovered.sources.clone();
    assert!(!sources.wait_for(|sources| !sources[0].fresh).await.unwrap()[0].fresh);
    endpoints(&running, "default/a:80=127.0.0.1:8080").await;

    fs::create_dir(&missing).unwrap();
    fs::write(missing.join("a.yaml"), manifest("a", "127.0.0.2")).unwrap();
    endpoints(&running, "default/a:80=127.0.0.2:8080").await;
    findings(&running, &[]).await;
    sources.wait_for(|sources| sources[0].fresh).await.unwrap();
}

#[test]
fn load_and_check_read_a_folder_once() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), manifest("a", "127.0.0.1")).unwrap();
    fs::write(dir.path().join("b.yaml"), manifest("a", "127.0.0.2")).unwrap();
    fs::write(dir.path().join("c.yaml"), manifest("c", "169.254.169.254")).unwrap();
    fs::write(
        dir.path().join("d.yaml"),
        manifest("d", "127.0.0.1").replace("service-name: d", "service-name: e"),
    )
    .unwrap();
    let (objects, findings) = load(dir.path(), "default").unwrap();
    assert_eq!(objects.len(), 6);
    let reasons = |findings: &[Finding]| findings.iter().map(|it| it.reason.to_string()).collect::<Vec<_>>();
    assert_eq!(reasons(&findings), ["UnknownService", "DuplicateObject", "DuplicateObject"]);
    assert!(
        findings[1].message.contains("a.yaml") && findings[1].message.contains("b.yaml"),
        "{}",
        findings[1]
    );
    let findings = check(dir.path(), &TranslateConfig::files("default")).unwrap();
    assert_eq!(
        reasons(&findings),
        ["RefusedAddress", "UnknownService", "DuplicateObject", "DuplicateObject", "NoEndpointSlices"]
    );
    assert!(load(&dir.path().join("nowhere"), "default").is_err());
}

#[test]
fn two_services_that_claim_one_host_or_path_are_named_both() {
    let dir = TempDir::new().unwrap();
    let claiming = |annotation: &str, name: &str| {
        let manifest =
            manifest(name, "127.0.0.1").replace("{portolan.dev", &format!("{{{annotation}, portolan.dev"));
        fs::write(dir.path().join(format!("{name}.yaml")), manifest).unwrap();
    };
    claiming("portolan.dev/host: shop.example.com", "a");
    claiming("portolan.dev/host: shop.example.com", "b");
    claiming("portolan.dev/path: /d", "c");
    claiming("team: x", "d");
    let findings = check(dir.path(), &TranslateConfig::files("default")).unwrap();
    let told: Vec<_> =
        findings.iter().map(|it| format!("{} {}: {}", it.reason, it.resource, it.field)).collect();
    assert_eq!(
        told,
        [
            "AlreadyClaimed Service default/b: host shop.example.com",
            "AlreadyClaimed Service default/d: path /d/**",
        ]
    );
    assert!(findings[0].message.contains("Service default/a"), "{}", findings[0]);
    assert!(findings[1].message.contains("Service default/c"), "{}", findings[1]);
}
