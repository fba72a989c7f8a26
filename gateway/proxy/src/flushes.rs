//! What a worker writes when all that was ready has had its turn.
//!
//! Problem: a task that writes as soon as it has something to write spreads its worker's writes over the whole round, each
//! some microseconds from the next. A reader on the same machine is through with one before the next comes, and sleeps
//! again; to wake it costs the worker more than the write. Choice: who has a whole message to send leaves it here, and goes
//! on to wait for what comes next. A task of its own, which is ready when the first message of a round is left, writes them
//! one close behind the other, requests before responses: the endpoints then have work while the clients are written to.
//! It also saves the turn in which a task would only write.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// With so many waiting they are written without waiting for more: the first of them has waited long enough.
const MOST: usize = 128;

/// Something with bytes to be written.
pub(crate) trait Flush {
    /// Writes as much as goes through now. If that is not all, or the connection broke, its owner is woken when it can go
    /// on.
    fn flush(&self);
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// A request.
    Endpoint,
    /// A response.
    Client,
}

/// One worker's messages that wait for the end of the round.
#[derive(Default)]
pub(crate) struct Flushes {
    requests: RefCell<Vec<Rc<dyn Flush>>>,
    responses: RefCell<Vec<Rc<dyn Flush>>>,
    waker: RefCell<Option<Waker>>,
}

impl Flushes {
    /// Leaves a message to be written in this round.
    pub(crate) fn leave(&self, to: To, message: Rc<dyn Flush>) {
        let mut waiting = match to {
            To::Endpoint => self.requests.borrow_mut(),
            To::Client => self.responses.borrow_mut(),
        };
        waiting.push(message);
        let count = waiting.len();
        drop(waiting);
        match count {
            1 => self.wake(),
            MOST => self.flush(),
            _ => {}
        }
    }

    /// Writes the messages of each round; a task of its own.
    pub(crate) async fn run(&self) {
        poll_fn(|cx| {
            self.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            self.flush();
            Poll::<()>::Pending
        })
        .await;
    }

    /// Writes what waits.
    pub(crate) fn flush(&self) {
        // All of it in one turn, which is more than the runtime lets a task do unasked: at the end of its patience each
        // write is left to its owner, which is what is to be saved. The number of messages is the bound.
        let all = pin!(tokio::task::unconstrained(async { self.write_all() }));
        let written = all.poll(&mut Context::from_waker(Waker::noop()));
        debug_assert!(written.is_ready(), "nothing in it waits");
    }

    fn write_all(&self) {
        for waiting in [&self.requests, &self.responses] {
            let mut messages = waiting.take();
            for message in messages.drain(..) {
                message.flush();
            }
            // Keeps the memory, unless more was left meanwhile.
            let mut waiting = waiting.borrow_mut();
            if waiting.is_empty() {
                *waiting = messages;
            }
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;

    use tokio::io::AsyncWrite as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Default)]
    struct Counted(Cell<usize>);

    impl Flush for Counted {
        fn flush(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[tokio::test(flavor = "local")]
    async fn what_is_left_is_written_behind_the_tasks_that_are_ready() {
        let flushes = Rc::new(Flushes::default());
        let runs = Rc::clone(&flushes);
        let task = tokio::task::spawn_local(async move { runs.run().await });
        tokio::task::yield_now().await;
        let message = Rc::new(Counted::default());
        let seen = Rc::clone(&message);
        let ready = tokio::task::spawn_local(async move { seen.0.get() });
        flushes.leave(To::Client, message.clone());
        assert_eq!(message.0.get(), 0);
        assert_eq!(ready.await.unwrap(), 0, "it was ready before");
        tokio::task::yield_now().await;
        assert_eq!(message.0.get(), 1);
        task.abort();
    }

    /// A byte for a connection.
    struct Byte {
        stream: RefCell<TcpStream>,
        written: Cell<bool>,
    }

    impl Flush for Byte {
        fn flush(&self) {
            let mut stream = self.stream.borrow_mut();
            let written = Pin::new(&mut *stream).poll_write(&mut Context::from_waker(Waker::noop()), b"x");
            self.written.set(written.is_ready());
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_round_is_written_whole_however_long_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut kept = Vec::new();
        let mut messages = Vec::new();
        for _ in 0..MOST - 1 {
            for to in [To::Endpoint, To::Client] {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                kept.push(listener.accept().await.unwrap());
                stream.writable().await.unwrap();
                messages.push((to, Rc::new(Byte { stream: stream.into(), written: Cell::default() })));
            }
        }
        // Within one turn of a task, as they are in a worker.
        tokio::task::yield_now().await;
        let flushes = Flushes::default();
        for (to, message) in &messages {
            flushes.leave(*to, message.clone());
        }
        flushes.flush();
        assert_eq!(messages.iter().filter(|(_, message)| message.written.get()).count(), messages.len());
    }

    #[test]
    fn many_messages_do_not_wait_for_the_end_of_the_round() {
        let flushes = Flushes::default();
        let message = Rc::new(Counted::default());
        for _ in 0..MOST + 1 {
            flushes.leave(To::Client, message.clone());
        }
        assert_eq!(message.0.get(), MOST);
        flushes.flush();
        assert_eq!(message.0.get(), MOST + 1);
    }
}
