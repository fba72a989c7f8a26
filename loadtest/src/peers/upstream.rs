//! The upstream of a measurement, as a process of its own: answers that were made before, on one thread.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::answer::{field, head_length};

/// How much is read at once, and how long a head may be.
const PIECE: usize = 64 << 10;
const BACKLOG: u32 = 4096;

/// The options of `peers-upstream`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to listen; each address is printed once connections are accepted there.
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
}

/// Whole answers by path.
#[derive(Debug)]
struct Answers(BTreeMap<&'static str, Vec<u8>>);

/// Serves until it is ended.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answers = Arc::new(Answers::make());
        for &address in &options.listen {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            writeln!(std::io::stdout(), "listens on {address}")?;
            let answers = answers.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, answers.clone()));
                }
            });
        }
        std::future::pending::<anyhow::Result<ExitCode>>().await
    })
}

impl Answers {
    fn make() -> Self {
        let answer = |length: usize| {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
            [head.into_bytes(), vec![b'.'; length]].concat()
        };
        Self(
            [("/", 102), ("/b/1k", 1 << 10), ("/b/64k", 64 << 10), ("/b/1m", 1 << 20)]
                .map(|(path, length)| (path, answer(length)))
                .into(),
        )
    }

    fn of(&self, path: &str) -> &[u8] {
        self.0.get(path).map_or(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Vec::as_slice)
    }
}

/// One connection, until it ends in whatever way.
async fn serve(mut stream: TcpStream, answers: Arc<Answers>) {
    // Answers leave at once.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut piece = vec![0; PIECE];
    let mut length = 0;
    loop {
        let Some(head) = head_length(&piece[..length]) else {
            match stream.read(&mut piece[length..]).await {
                Ok(more) if more > 0 => length += more,
                _ => return,
            }
            continue;
        };
        let Ok(text) = std::str::from_utf8(&piece[..head]) else { return };
        let answer = answers.of(text.split(' ').nth(1).unwrap_or_default());
        let body: usize = field(text, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut missing = (head + body).saturating_sub(length);
        let surplus = length.saturating_sub(head + body);
        piece.copy_within(length - surplus..length, 0);
        length = surplus;
        while missing > 0 {
            let room = missing.min(PIECE);
            match stream.read(&mut piece[..room]).await {
                Ok(more) if more > 0 => missing -= more,
                _ => return,
            }
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
