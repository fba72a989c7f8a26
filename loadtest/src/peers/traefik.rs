//! Traefik.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::setup::Setup;

/// The command that runs it.
pub(super) fn command(mut program: Command, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let (file, routes) = (setup.folder.join("traefik.yaml"), setup.folder.join("routes.yaml"));
    // JSON is YAML.
    fs::write(&routes, self::routes(setup))?;
    fs::write(&file, config(setup))?;
    program.arg("--configfile").arg(file).env("GOMAXPROCS", setup.shape.workers.to_string());
    Ok(program)
}

fn config(setup: &Setup<'_>) -> String {
    let entry_point = |address: std::net::SocketAddr| {
        json!({
            "address": address,
            "transport": { "respondingTimeouts": { "idleTimeout": "5m" } },
        })
    };
    let mut config = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "log": { "level": "ERROR" },
        "entryPoints": { "plain": entry_point(setup.plain), "tls": entry_point(setup.tls) },
        "serversTransport": { "maxIdleConnsPerHost": 1000 },
        "providers": { "file": { "filename": setup.folder.join("routes.yaml"), "watch": false } },
    });
    if setup.shape.logged {
        config["accessLog"] = json!({ "filePath": setup.folder.join("access.log") });
    }
    format!("{config:#}")
}

/// Of its ways to balance, the one that it has; there is no counting of requests in flight in it.
fn routes(setup: &Setup<'_>) -> String {
    let router = |entry_point: &str| json!({ "entryPoints": [entry_point], "rule": "PathPrefix(`/`)", "service": "echo" });
    let mut tls = router("tls");
    tls["tls"] = json!({});
    let servers: Vec<Value> =
        setup.upstreams.iter().map(|upstream| json!({ "url": format!("http://{upstream}") })).collect();
    let routes = json!({
        "http": {
            "routers": { "plain": router("plain"), "tls": tls },
            "services": { "echo": { "loadBalancer": { "servers": servers } } },
        },
        "tls": {
            "options": { "default": { "minVersion": "VersionTLS13" } },
            "certificates": [{
                "certFile": setup.certificate.certificate,
                "keyFile": setup.certificate.key,
            }],
        },
    });
    format!("{routes:#}")
}

#[cfg(test)]
mod tests {
    use super::super::setup::for_tests::{logged_least_connection, plain};
    use super::*;

    #[test]
    fn every_upstream_and_every_wish_is_in_it() {
        let config: Value = serde_json::from_str(&plain(config)).unwrap();
        assert_eq!(config["entryPoints"]["plain"]["address"], "127.0.0.1:20001");
        assert_eq!(config["entryPoints"]["tls"]["address"], "127.0.0.1:20002");
        assert_eq!(config["accessLog"], Value::Null);
        assert!(logged_least_connection(self::config).contains("accessLog"));
        let routes: Value = serde_json::from_str(&plain(routes)).unwrap();
        let servers = &routes["http"]["services"]["echo"]["loadBalancer"]["servers"];
        assert_eq!(servers.as_array().unwrap().len(), 4);
    }
}
