//! Who is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::super::peer::Peer;
use super::super::ports;
use super::super::processes::CpuTime;
use super::super::server::Server;
use super::super::setup::{Bench, SMALL, Setup, Shape};

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// HAProxy, with the backend behind it.
    Proxy,
    /// The backend itself.
    Backend,
    /// nginx with the backend's answers.
    Nginx,
}

/// One that runs on the core of the proxies.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    server: Server,
    _folder: TempDir,
}

impl Target {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Proxy => "HAProxy",
            Self::Backend => "backend",
            Self::Nginx => "nginx",
        }
    }

    pub(super) async fn start(self, bench: &Bench, shape: Shape) -> anyhow::Result<Running> {
        let folder = bench.work_folder()?;
        let addresses = ports::free(2)?;
        let (plain, tls) = (addresses[0], addresses[1]);
        let command = match self {
            Self::Proxy => {
                let setup = Setup {
                    folder: folder.path(),
                    plain,
                    tls,
                    certificate: &bench.certificate,
                    upstreams: &bench.upstreams,
                    shape,
                };
                bench.programs.command(Peer::HaProxy, &setup)?
            }
            Self::Backend => {
                let mut command = Command::new(&bench.ourselves);
                command.args(["backend", "--name", "echo", "--body", SMALL, "--listen", &plain.to_string()]);
                command
            }
            Self::Nginx => nginx(bench.programs.program(Peer::Nginx), folder.path(), plain)?,
        };
        let mut server = Server::start(&command, bench, folder.path())?;
        server.answers(plain).await?;
        Ok(Running { plain, tls, server, _folder: folder })
    }
}

impl Running {
    pub(super) fn cpu_time(&self) -> CpuTime {
        self.server.tree().cpu_time()
    }
}

/// nginx with the answers of the backend: the small one in its configuration, the large one in a file that it keeps open.
fn nginx(mut program: Command, folder: &Path, plain: SocketAddr) -> anyhow::Result<Command> {
    let files = folder.join("b");
    fs::create_dir(&files)?;
    fs::write(files.join("64k"), vec![b'.'; 64 << 10])?;
    let small = ".".repeat(SMALL.parse()?);
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let folder_name = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder_name}/{kind}; "))
        .concat();
    let text = format!(
        "{user}daemon off;
worker_processes 1;
pid {folder_name}/nginx.pid;
error_log stderr error;
events {{ worker_connections 9000; multi_accept on; }}
http {{
  access_log off;
  {temporary}
  keepalive_timeout 5m;
  keepalive_requests 1000000000;
  sendfile on;
  open_file_cache max=10;
  default_type application/json;
  server {{
    listen {plain} backlog=4096;
    add_header x-upstream echo;
    add_header x-version dev;
    location = / {{ return 200 '{small}'; }}
    location /b/ {{ root {folder_name}; }}
  }}
}}
"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    program.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
    Ok(program)
}
