//! Portolan, on a folder of manifests.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::ports;
use super::setup::Setup;
use crate::churn;

/// Other Services in one file: a file may have 4 MiB.
const SERVICES_PER_FILE: usize = 100;

/// Builds the release binary of this work tree, and tells where it is.
///
/// # Errors
/// If it does not build.
pub(super) fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--release",
        "--package",
        "portolan",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stderr(Stdio::inherit());
    // `cargo run` told us about ourselves; some build scripts watch these, and would compile anew each time.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().context("cannot run cargo; a built portolan can be named with --portolan")?;
    if !output.status.success() {
        bail!("portolan does not build: what cargo said stands above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).context("cargo built no program of the name portolan")
}

/// Where the program is, by what cargo says.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_portolan = message["target"]["name"] == "portolan";
        is_portolan.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

/// Writes the manifests, and gives the command that runs it on them.
pub(super) fn command(program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let shape = setup.shape;
    let folder = manifests(setup.folder);
    fs::create_dir(&folder)?;
    let service = service("echo", Some("/"), shape.least_connection);
    fs::write(folder.join("echo.yaml"), service)?;
    churn::Endpoints::new("echo", setup.upstreams).write(&folder)?;
    let others: Vec<_> = (1..shape.routes).collect();
    for (index, others) in others.chunks(SERVICES_PER_FILE).enumerate() {
        let text: String = others.iter().map(|&number| other(number, shape.other_endpoints)).collect();
        fs::write(folder.join(format!("others-{index}.yaml")), text)?;
    }
    let pages = ports::free(3)?;
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).arg("run").arg("--files").arg(folder);
    let mut set = |name: &str, value: &dyn ToString| {
        command.arg(format!("--{name}")).arg(value.to_string());
    };
    set("listen", &setup.plain);
    set("listen-cluster", &pages[0]);
    set("admin", &pages[1]);
    set("status", &pages[2]);
    set("workers", &shape.workers);
    set("client-idle-timeout", &"5m");
    set("drain-delay", &"0s");
    set("drain-timeout", &"1s");
    set("access-log", &if shape.logged { "all" } else { "errors" });
    set("log", &"warn");
    if shape.tls {
        set("listen-tls", &setup.tls);
        set("tls-cert", &setup.certificate.certificate.display());
        set("tls-key", &setup.certificate.key.display());
    }
    command.arg("--all-namespaces").args(["--default-namespace", "default"]);
    Ok(command)
}

/// The folder of manifests in the folder of a setup.
pub(super) fn manifests(folder: &Path) -> PathBuf {
    folder.join("manifests")
}

fn service(name: &str, path: Option<&str>, least_connection: bool) -> String {
    let path = path.map(|path| format!("    portolan.dev/path: {path}\n")).unwrap_or_default();
    let balance = if least_connection { "    portolan.dev/balance: least-connection\n" } else { "" };
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  annotations:\n    \
         portolan.dev/expose: \"true\"\n{path}{balance}spec:\n  ports:\n  - {{name: http, port: 80}}\n"
    )
}

/// A Service that nobody asks, with endpoints that nobody dials, all the same on loopback.
fn other(number: usize, endpoints: usize) -> String {
    let name = format!("other-{number}");
    let mut text = service(&name, None, false);
    write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: default\n  \
         labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports:\n- {{name: http, port: 9, protocol: \
         TCP}}\nendpoints:\n"
    )
    .expect("a text takes all");
    for index in 0..endpoints {
        let address =
            Ipv4Addr::from_bits(0x7f10_0000 + u32::try_from(number * endpoints + index).unwrap_or(0));
        writeln!(
            text,
            "- {{addresses: [{address}], targetRef: {{kind: Pod, name: p{index}, uid: {number}-{index}}}}}"
        )
        .expect("a text takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::setup::Shape;
    use super::super::setup::for_tests::with;
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"portolan_proxy"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"portolan"},"executable":"/t/release/portolan"}"#,
            "\n",
        );
        assert_eq!(executable(messages), Some("/t/release/portolan".into()));
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn flags_and_manifests_follow_the_shape() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { routes: 251, other_endpoints: 3, workers: 2, tls: true, ..Shape::PLAIN };
        let command = with(shape, |setup| {
            let setup = Setup { folder: folder.path(), ..*setup };
            command(Path::new("/bin/portolan"), &setup).unwrap()
        });
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let has = |flag, value| words.windows(2).any(|pair| pair == [flag, value]);
        assert!(has("--workers", "2") && has("--listen-tls", "127.0.0.1:20002"), "{words:?}");
        let texts: Vec<_> = fs::read_dir(manifests(folder.path()))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        let all = texts.concat();
        assert_eq!(all.matches("kind: Service\n").count(), 251);
        let addresses =
            all.lines().filter_map(|line| line.strip_prefix("- {addresses: [")?.split(']').next());
        let mut others: Vec<_> = addresses.collect();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others.len(), 250 * 3, "no address twice");
    }
}
