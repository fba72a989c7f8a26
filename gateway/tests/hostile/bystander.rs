//! Someone who sends sound requests all the while, over the same connections to the endpoint, and must get their own
//! answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// 50 requests a second.
const PACE: Duration = Duration::from_millis(20);

pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Bystander {
    pub(crate) fn start(edge: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut harmed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                asked += 1;
                let id = format!("bystander-{asked}");
                if !ask(edge, &id) {
                    harmed.push(id);
                }
                std::thread::sleep(PACE);
            }
            (asked, harmed)
        });
        Self { stop, thread }
    }

    /// How often it asked, and which of its requests did not get their own answers.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Whether a request with this id gets its own answer.
pub(crate) fn ask(edge: SocketAddr, id: &str) -> bool {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(edge)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /{id} HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!(" /{id}")))
}
