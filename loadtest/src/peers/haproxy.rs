//! HAProxy.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::setup::Setup;

/// The command that runs it in the foreground.
pub(super) fn command(mut program: Command, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let file = setup.folder.join("haproxy.cfg");
    fs::write(&file, config(setup))?;
    program.arg("-db").arg("-f").arg(file);
    Ok(program)
}

fn config(setup: &Setup<'_>) -> String {
    let Setup { plain, tls, shape, .. } = setup;
    let both = setup.certificate.both.display();
    let threads = shape.workers;
    // Standard output is a file: each request is one write to it.
    let (target, log) = if shape.logged {
        ("log stdout format raw local0\n", "log global\noption httplog\n")
    } else {
        ("", "")
    };
    let balance = if shape.least_connection { "leastconn" } else { "roundrobin" };
    let mut text = format!(
        "global
maxconn 9900
nbthread {threads}
ssl-default-bind-options ssl-min-ver TLSv1.3
{target}
defaults
mode http
timeout connect 5s
timeout client 5m
timeout server 5m
timeout http-keep-alive 5m
option forwardfor
{log}
frontend edge
bind {plain} backlog 4096
bind {tls} backlog 4096 ssl crt {both} alpn h2,http/1.1
default_backend echo

backend echo
balance {balance}
http-reuse always
"
    );
    for (index, upstream) in setup.upstreams.iter().enumerate() {
        writeln!(text, "server upstream{index} {upstream} pool-max-conn 1000").expect("a text takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::setup::for_tests::{logged_least_connection, plain};
    use super::*;

    #[test]
    fn every_upstream_and_every_wish_is_in_it() {
        let text = plain(config);
        assert!(
            text.contains("bind 127.0.0.1:20001 ") && text.contains("bind 127.0.0.1:20002 backlog 4096 ssl")
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("server ")).count(), 4);
        assert!(text.contains("balance roundrobin") && !text.contains("httplog"));
        let text = logged_least_connection(config);
        assert!(text.contains("balance leastconn") && text.contains("option httplog"));
    }
}
