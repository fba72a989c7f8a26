//! nginx.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::setup::Setup;

/// The command that runs it in the foreground: a master that sleeps, and its worker.
pub(super) fn command(mut program: Command, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let file = setup.folder.join("nginx.conf");
    // A worker of root gives up its rights by default, and could not reach the folder then.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    fs::write(&file, format!("{user}{}", config(setup)))?;
    program.arg("-p").arg(setup.folder).arg("-e").arg(setup.folder.join("error.log")).arg("-c").arg(file);
    Ok(program)
}

fn config(setup: &Setup<'_>) -> String {
    let Setup { plain, tls, certificate, shape, .. } = setup;
    let folder = setup.folder.display();
    let workers = shape.workers;
    let access_log =
        if shape.logged { format!("access_log {folder}/access.log;") } else { "access_log off;".to_owned() };
    let balance = if shape.least_connection { "least_conn;" } else { "" };
    let mut servers = String::new();
    for upstream in setup.upstreams {
        write!(servers, "server {upstream}; ").expect("a text takes all");
    }
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        write!(temporary, "{kind}_temp_path {folder}/{kind}; ").expect("a text takes all");
    }
    let (cert, key) = (certificate.certificate.display(), certificate.key.display());
    format!(
        "daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 19000; multi_accept on; }}
http {{
  {access_log}
  {temporary}
  keepalive_timeout 5m;
  keepalive_requests 1000000000;
  upstream echo {{
    {balance}
    {servers}
    keepalive 1000;
    keepalive_requests 1000000000;
    keepalive_timeout 5m;
  }}
  server {{
    listen {plain} reuseport backlog=4096;
    listen {tls} ssl reuseport backlog=4096;
    http2 on;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    location / {{
      proxy_pass http://echo;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection \"\";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::setup::for_tests::{logged_least_connection, plain};
    use super::*;

    #[test]
    fn every_upstream_and_every_wish_is_in_it() {
        let text = plain(config);
        assert!(text.contains("listen 127.0.0.1:20001 ") && text.contains("listen 127.0.0.1:20002 ssl"));
        assert!(text.contains("server 127.0.0.1:9001; server 127.0.0.1:9002; "));
        assert!(text.contains("access_log off;") && !text.contains("least_conn"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let text = logged_least_connection(config);
        assert!(text.contains("least_conn;") && text.contains("/access.log;"));
    }
}
