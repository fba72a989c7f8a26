//! Cases within the process: one part of the data path each, many times over.

use std::hint::black_box;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, Method};
use portolan_model::{Balancing, Cluster, ClusterPolicy, Endpoint, Role, Snapshot};
use portolan_proxy::cluster::{Balancers, PickContext};
use portolan_proxy::table::{Published, Publisher, RequestView, RoutingTable};
use tokio::time::Instant;

use crate::callgrind::{Run, portolan_measured};
use crate::world;

/// One part, how often, and what is done.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    times: u32,
    run: fn(u32),
}

/// A bit more than a second each, most of it set-up.
pub(crate) const CASES: &[Case] = &[
    Case { name: "lookup/path/1", times: 4000, run: |times| look_up(1, Role::Edge, times) },
    Case { name: "lookup/path/100", times: 4000, run: |times| look_up(100, Role::Edge, times) },
    Case { name: "lookup/path/5000", times: 4000, run: |times| look_up(5000, Role::Edge, times) },
    Case { name: "lookup/host/1", times: 4000, run: |times| look_up(1, Role::Cluster, times) },
    Case { name: "lookup/host/100", times: 4000, run: |times| look_up(100, Role::Cluster, times) },
    Case { name: "lookup/host/5000", times: 4000, run: |times| look_up(5000, Role::Cluster, times) },
    Case { name: "pick/round-robin/10", times: 4000, run: |times| pick(Balancing::RoundRobin, 10, times) },
    Case {
        name: "pick/round-robin/100000",
        times: 4000,
        run: |times| pick(Balancing::RoundRobin, 100_000, times),
    },
    Case {
        name: "pick/least-connection/2",
        times: 4000,
        run: |times| pick(Balancing::LeastConnection, 2, times),
    },
    Case {
        name: "pick/least-connection/10",
        times: 4000,
        run: |times| pick(Balancing::LeastConnection, 10, times),
    },
    Case {
        name: "pick/least-connection/100000",
        times: 4000,
        run: |times| pick(Balancing::LeastConnection, 100_000, times),
    },
    Case { name: "table/compile/5000", times: 1, run: |_| compile(5000) },
    Case { name: "table/one-more-of/5000", times: 4, run: one_more },
    Case { name: "table/endpoints-of-one-of/5000", times: 50, run: endpoints_of_one },
];

impl Case {
    /// Instructions each time.
    pub(crate) fn count(&self) -> Result<u64> {
        let mut run = Run::measured()?;
        let status = run.command.args(["--inside", self.name]).stdin(Stdio::null()).status();
        let status = status.context("cannot run valgrind; install it")?;
        ensure!(status.success(), "{} failed: {status}", self.name);
        Ok(run.instructions()? / u64::from(self.times))
    }
}

/// Under valgrind: runs the case of this name.
pub(crate) fn run(name: &str) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name).context("a case of this name")?;
    (case.run)(case.times);
    Ok(())
}

fn look_up(services: u32, role: Role, times: u32) {
    let table = table(world::services(services, 1));
    // Spread over the table, so that it is not one and the same entry.
    let asked = (0..times).map(|time| world::name((time * 37) % services));
    let asked: Vec<_> = asked.map(|name| (world::full_name(&name), format!("/{name}/items/7"))).collect();
    let headers = HeaderMap::new();
    portolan_measured(|| {
        for (name, path) in &asked {
            let (host, path) = match role {
                Role::Edge => ("shop.example.com", path.as_str()),
                Role::Cluster => (name.as_str(), "/items/7"),
            };
            let view = RequestView {
                host: Some(host),
                port: None,
                named_only: false,
                method: &Method::GET,
                path,
                query: None,
                headers: &headers,
            };
            black_box(table.find_http(role, &view)).expect("every Service has its routes");
        }
    });
}

fn pick(balancing: Balancing, endpoints: u32, times: u32) {
    let mut snapshot = Snapshot { generation: 1, ..Snapshot::default() };
    let policy = Arc::new(ClusterPolicy { balancing, ..ClusterPolicy::default() });
    world::put(&mut snapshot, 0, (0..endpoints).map(world::address), &policy);
    let table = table(snapshot);
    let cluster = table.clusters().iter().next().expect("there is one Service");
    let mut balancers = Balancers::new(0, 1);
    let context = PickContext { now: Instant::now(), affinity: None, tried: &[], copyable: true };
    // The first one makes the schedule. Some are under way, as they are in earnest.
    let under_way: Vec<_> = (0..8).map(|_| balancers.pick(cluster, &context)).collect();
    portolan_measured(|| {
        for _ in 0..times {
            black_box(balancers.pick(cluster, &context)).expect("there are endpoints");
        }
    });
    drop(under_way);
}

fn compile(services: u32) {
    let snapshot = Arc::new(world::services(services, 4));
    let (mut publisher, published) = Publisher::new(|_| {});
    portolan_measured(|| publisher.publish(&snapshot));
    assert_eq!(published.table.load().generation(), 1);
}

fn one_more(times: u32) {
    let (mut publisher, _published, mut snapshot) = publisher(world::services(5000, 4));
    let mut snapshots = Vec::new();
    for number in 0..times {
        snapshot.generation += 1;
        world::put(&mut snapshot, 5000 + number, [world::address(number)].into_iter(), &Arc::default());
        snapshots.push(Arc::new(snapshot.clone()));
    }
    portolan_measured(|| snapshots.iter().for_each(|snapshot| publisher.publish(snapshot)));
}

fn endpoints_of_one(times: u32) {
    let (mut publisher, _published, mut snapshot) = publisher(world::services(5000, 4));
    let mut snapshots = Vec::new();
    for number in 0..times {
        snapshot.generation += 1;
        let changed = snapshot.clusters.values().nth(2500 + number as usize).expect("there are as many");
        let mut changed = Cluster::clone(changed);
        let more = [Endpoint::new(world::address(1 << 20))];
        changed.endpoints = changed.endpoints.iter().cloned().chain(more).collect();
        snapshot.clusters.insert(changed.id.clone(), Arc::new(changed));
        snapshots.push(Arc::new(snapshot.clone()));
    }
    portolan_measured(|| snapshots.iter().for_each(|snapshot| publisher.publish(snapshot)));
}

fn publisher(snapshot: Snapshot) -> (Publisher, Published, Snapshot) {
    let (mut publisher, published) = Publisher::new(|_| {});
    publisher.publish(&Arc::new(snapshot.clone()));
    (publisher, published, snapshot)
}

fn table(snapshot: Snapshot) -> Arc<RoutingTable> {
    let (_publisher, published, _snapshot) = publisher(snapshot);
    published.table.load_full()
}
