//! A server that does to each connection exactly what a test says.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Serves each connection by `script`, on a thread each; the threads end with the test's process.
pub(crate) fn serve(script: impl Fn(Wire) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).unwrap();
            let script = script.clone();
            std::thread::spawn(move || script(Wire(stream)));
        }
    });
    address
}

/// One accepted connection. Dropping it closes.
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// Reads one request without a body; false at the end of the connection.
    pub(crate) fn request(&mut self) -> bool {
        self.request_text().ends_with("\r\n\r\n")
    }

    /// The head of one request, or what there is of it.
    pub(crate) fn request_text(&mut self) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") {
            match self.0.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8(seen).unwrap()
    }

    /// Writes this.
    pub(crate) fn write(&mut self, text: &str) {
        // The other side may be gone by design of a test.
        let _gone = self.0.write_all(text.as_bytes()).is_err();
    }

    /// Answers 200 with an empty body.
    pub(crate) fn ok(&mut self) {
        self.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// Waits until the other side closes.
    pub(crate) fn wait_for_close(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.0.read(&mut bytes), Ok(1..)) {}
    }
}
