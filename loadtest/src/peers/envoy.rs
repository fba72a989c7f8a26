//! Envoy.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use super::setup::Setup;

/// The command that runs it.
pub(super) fn command(mut program: Command, setup: &Setup<'_>) -> anyhow::Result<Command> {
    let file = setup.folder.join("envoy.json");
    fs::write(&file, config(setup))?;
    program.arg("-c").arg(file);
    program.args(["--concurrency", &setup.shape.workers.to_string()]);
    program.args(["--disable-hot-restart", "--log-level", "error"]);
    Ok(program)
}

fn config(setup: &Setup<'_>) -> String {
    let connections = connections(setup);
    let config = json!({
        "static_resources": {
            "listeners": [
                listener("plain", setup.plain, &connections, None),
                listener("tls", setup.tls, &connections, Some(tls(setup))),
            ],
            "clusters": [cluster(setup)],
        },
    });
    format!("{config:#}")
}

fn listener(name: &str, address: SocketAddr, connections: &Value, tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [connections] });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({ "name": name, "address": socket(address), "filter_chains": [chain] })
}

/// The filter that reads HTTP from a client's connection.
fn connections(setup: &Setup<'_>) -> Value {
    let log = setup.folder.join("access.log");
    let logs = if setup.shape.logged {
        json!([{
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": log,
            },
        }])
    } else {
        json!([])
    };
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "edge",
            "codec_type": "AUTO",
            "use_remote_address": true,
            "generate_request_id": false,
            "access_log": logs,
            "route_config": {
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "echo", "timeout": "0s" } }],
                }],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": true,
                },
            }],
        },
    })
}

fn tls(setup: &Setup<'_>) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{
                    "certificate_chain": { "filename": setup.certificate.certificate },
                    "private_key": { "filename": setup.certificate.key },
                }],
            },
        },
    })
}

fn cluster(setup: &Setup<'_>) -> Value {
    let endpoints: Vec<_> = setup
        .upstreams
        .iter()
        .map(|&upstream| json!({ "endpoint": { "address": socket(upstream) } }))
        .collect();
    // The limits of a cluster are far below 9,000 connections by default.
    let limit = 100_000;
    json!({
        "name": "echo",
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": if setup.shape.least_connection { "LEAST_REQUEST" } else { "ROUND_ROBIN" },
        "circuit_breakers": {
            "thresholds": [{ "max_connections": limit, "max_pending_requests": limit, "max_requests": limit }],
        },
        "load_assignment": { "cluster_name": "echo", "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

#[cfg(test)]
mod tests {
    use super::super::setup::for_tests::{logged_least_connection, plain};
    use super::*;

    #[test]
    fn every_upstream_and_every_wish_is_in_it() {
        let config: Value = serde_json::from_str(&plain(config)).unwrap();
        let ports: Vec<_> = (0..2)
            .map(|index| {
                config["static_resources"]["listeners"][index]["address"]["socket_address"]["port_value"]
                    .clone()
            })
            .collect();
        assert_eq!(ports, [20001, 20002]);
        let cluster = &config["static_resources"]["clusters"][0];
        assert_eq!(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().unwrap().len(), 4);
        assert_eq!(cluster["lb_policy"], "ROUND_ROBIN");
    }

    #[test]
    fn least_connection_and_the_log_are_asked_for() {
        let text = logged_least_connection(config);
        assert!(text.contains("LEAST_REQUEST") && text.contains("FileAccessLog"), "{text}");
    }
}
