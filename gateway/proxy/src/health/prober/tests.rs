use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use portolan_model::{self as model, ClusterPolicy, Probe, ResourceRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::cluster::Health;
use crate::table::Publisher;

/// Longer than anything here takes unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// An upstream that answers each check with the status that the test hands it, and tells what it was asked.
struct Upstream {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
    answers: mpsc::Sender<StatusCode>,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel(1);
        let (answers, mut next) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                head.truncate(length);
                tell.send(String::from_utf8(head).unwrap()).await.unwrap();
                let status: StatusCode = next.recv().await.unwrap();
                let answer = format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", status.as_u16());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { address, asked, answers }
    }

    /// Waits for a check and answers it.
    async fn answer(&mut self, status: StatusCode) -> String {
        let head = timeout(PATIENCE, self.asked.recv()).await.expect("a check comes in time").unwrap();
        self.answers.send(status).await.unwrap();
        head
    }

    /// Answers checks until the endpoint is as `wanted`, and says how many it took. The verdict on one check is there
    /// when the next one comes.
    async fn answer_until(&mut self, endpoint: &Endpoint, wanted: Health, status: StatusCode) -> u32 {
        for checks in 0..100 {
            timeout(PATIENCE, self.asked.recv()).await.expect("a check comes in time").unwrap();
            let is_so = endpoint.health(Instant::now()) == wanted;
            self.answers.send(status).await.unwrap();
            if is_so {
                return checks;
            }
        }
        panic!("{wanted:?} within 100 checks")
    }
}

fn snapshot(generation: u64, addresses: &[SocketAddr], probe: Option<Probe>) -> Arc<Snapshot> {
    let health_check = probe.map(|probe| HealthCheck {
        probe,
        interval: Duration::from_millis(5),
        timeout: Duration::from_secs(5),
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    });
    let mut addresses = addresses.to_vec();
    addresses.sort();
    let said = model::Cluster {
        id: ClusterId::new("shop", "orders", 80),
        source: ResourceRef::new("Service", "shop", "orders"),
        endpoints: addresses.into_iter().map(model::Endpoint::new).collect(),
        policy: Arc::new(ClusterPolicy { health_check, ..ClusterPolicy::default() }),
    };
    let mut snapshot = Snapshot { generation, ..Snapshot::default() };
    snapshot.clusters.insert(said.id.clone(), Arc::new(said));
    Arc::new(snapshot)
}

struct Running {
    publisher: Publisher,
    published: Published,
    prober: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(first: &Arc<Snapshot>) -> Self {
        let (mut publisher, published) = Publisher::new(|_| ());
        publisher.publish(first);
        let prober = tokio::spawn(Prober::new(published.clone()).run());
        Self { publisher, published, prober }
    }

    fn cluster(&self) -> Arc<Cluster> {
        let table = self.published.table.load();
        Arc::clone(table.clusters().find(&ClusterId::new("shop", "orders", 80)).unwrap())
    }

    fn endpoint(&self, at: usize) -> Arc<Endpoint> {
        Arc::clone(&self.cluster().state().endpoints[at])
    }

    async fn end(self) {
        drop(self.publisher);
        timeout(PATIENCE, self.prober).await.expect("the prober ends with the publisher").unwrap();
    }
}

const GOOD: StatusCode = StatusCode::NO_CONTENT;
const BAD: StatusCode = StatusCode::NOT_FOUND;

#[tokio::test]
async fn bad_answers_in_a_row_fail_an_endpoint_and_good_ones_bring_it_back() {
    let mut upstream = Upstream::start().await;
    let running = Running::start(&snapshot(1, &[upstream.address], Some(Probe::Http("/healthz?x=1".into()))));
    let endpoint = running.endpoint(0);
    let epoch = running.cluster().epoch();

    let head = upstream.answer(GOOD).await;
    assert!(head.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("host: orders.shop\r\n") && head.contains("user-agent: portolan-health\r\n"),
        "{head}"
    );
    for status in [BAD, BAD, GOOD] {
        upstream.answer(status).await;
        assert_eq!(endpoint.health(Instant::now()), Health::Healthy, "not three in a row yet");
    }
    assert_eq!(upstream.answer_until(&endpoint, Health::Failed, BAD).await, 3);
    assert!(running.cluster().epoch() > epoch, "the balancers are told");
    // The check that found it failed was answered badly, too.
    assert_eq!(upstream.answer_until(&endpoint, Health::Healthy, GOOD).await, 2);
    running.end().await;
}

#[tokio::test]
async fn all_may_fail_and_a_check_that_is_no_longer_asked_for_is_forgiven() {
    // Addresses where nobody listens: bound for a moment only.
    let mut nobody = Vec::new();
    for _ in 0..2 {
        nobody.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses = nobody.iter().map(|listener| listener.local_addr().unwrap()).collect::<Vec<_>>();
    drop(nobody);
    let mut running = Running::start(&snapshot(1, &addresses, Some(Probe::Tcp)));
    let (one, other) = (running.endpoint(0), running.endpoint(1));
    let both = |wanted| {
        let (one, other) = (Arc::clone(&one), Arc::clone(&other));
        async move {
            let is_so = || [&one, &other].iter().all(|at| at.health(Instant::now()) == wanted);
            while !is_so() {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, both(Health::Failed)).await.expect("checks have no cap");
    running.publisher.publish(&snapshot(2, &addresses, None));
    timeout(PATIENCE, both(Health::Healthy)).await.expect("what is not checked is not failed");
    running.end().await;
}

#[tokio::test]
async fn an_endpoint_that_left_is_asked_no_more_and_a_new_one_is_healthy_at_first() {
    let mut leaving = Upstream::start().await;
    let mut staying = Upstream::start().await;
    let mut running = Running::start(&snapshot(1, &[leaving.address], Some(Probe::Http("/".into()))));
    assert_eq!(leaving.answer_until(&running.endpoint(0), Health::Failed, BAD).await, 3);
    running.publisher.publish(&snapshot(2, &[staying.address], Some(Probe::Http("/".into()))));
    assert_eq!(running.endpoint(0).health(Instant::now()), Health::Healthy);
    // A check that ran while the endpoint left may still come; after it there are only those of the other.
    let mut late = 0;
    for _ in 0..20 {
        staying.answer(GOOD).await;
        if leaving.asked.try_recv().is_ok() {
            late += 1;
            leaving.answers.send(GOOD).await.unwrap();
        }
    }
    assert!(late <= 1, "{late} checks of an endpoint that left");
    running.end().await;
}

#[test]
fn a_path_that_is_none_is_refused() {
    let source = ResourceRef::new("Service", "shop", "orders");
    for path in ["", "healthz", "http://elsewhere/", "/a b"] {
        let error = Question::new(&Probe::Http(path.into()), &source).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}
