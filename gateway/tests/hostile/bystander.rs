//! People who send sound requests all the while, over the same connections to the endpoint, and must get their own
//! answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire;

/// 50 requests a second.
const PACE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);
/// Their address: that of nobody else.
const ADDRESS: &str = "127.0.0.1";

/// One who keeps a connection, and one who opens a new one each time.
pub(crate) struct Bystanders {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<Account>; 2],
}

/// What became of their requests.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) asked: usize,
    pub(crate) harmed: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Bystanders {
    pub(crate) fn start(edge: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = ["kept", "new"].map(|kind| {
            let stopped = Arc::clone(&stop);
            std::thread::spawn(move || watch(edge, kind, &stopped))
        });
        Self { stop, threads }
    }

    pub(crate) fn end(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Account::default();
        for account in self.threads.map(|thread| thread.join().unwrap()) {
            sum.asked += account.asked;
            sum.harmed.extend(account.harmed);
            sum.slowest = sum.slowest.max(account.slowest);
        }
        sum
    }
}

fn watch(edge: SocketAddr, kind: &str, stopped: &AtomicBool) -> Account {
    let (mut account, mut kept, mut due) = (Account::default(), None, Instant::now());
    while !stopped.load(Ordering::Relaxed) {
        account.asked += 1;
        let id = format!("bystander-{kind}-{}", account.asked);
        let start = Instant::now();
        if kind == "new" {
            kept = None;
        }
        match over(&mut kept, edge, &id) {
            Ok(()) => account.slowest = account.slowest.max(start.elapsed()),
            Err(why) => {
                kept = None;
                account.harmed.push(format!("{id}: {why}"));
            }
        }
        due += PACE;
        // Whoever was held up does not send more at once for it.
        due = due.max(Instant::now());
        std::thread::sleep(due - Instant::now());
    }
    account
}

/// Sends a request with this id and takes its answer, which must be its own.
pub(crate) fn ask(edge: SocketAddr, id: &str) -> Result<(), String> {
    over(&mut None, edge, id)
}

fn over(kept: &mut Option<TcpStream>, edge: SocketAddr, id: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(edge).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            kept.insert(stream)
        }
    };
    write!(stream, "GET /{id} HTTP/1.1\r\nHost: ok.test\r\n\r\n").map_err(failed)?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match wire::response(&bytes, false, false) {
            wire::Read::Whole(response, used) => {
                let own = format!("{ADDRESS} /{id}");
                let sound = response.status == 200 && response.body == own.as_bytes() && used == bytes.len();
                return sound.then_some(()).ok_or_else(|| format!("{:?}", wire::latin1(&bytes)));
            }
            wire::Read::Garbage(why) => return Err(format!("{why}: {:?}", wire::latin1(&bytes))),
            wire::Read::Partial => {}
        }
        match stream.read(&mut piece).map_err(failed)? {
            0 => return Err("the connection ended".to_owned()),
            read => bytes.extend(&piece[..read]),
        }
    }
}
