//! Futures as tasks of tokio, on one thread, driven by the engine's descriptor.

use super::{Begun, Form, Got, Wanted, memory, on_purpose};
use crate::common::PATIENCE;
use ::tokio::runtime::{Builder, Handle};
use ::tokio::sync::oneshot;
use ::tokio::task::JoinHandle;
use sinew::{Buf, Endpoint, Engine, Failed, OpError, Peer, RecvOp, SendOp};
use std::future::Future;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A runtime on a thread of its own.
pub(super) struct Tasks {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tasks {
    pub(super) fn start(engine: &Engine) -> Self {
        let engine = engine.clone();
        let (say, hear) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            say.send(runtime.handle().clone()).unwrap();
            runtime.block_on(async move {
                let driver = sinew::on_tokio::drive(&engine).unwrap();
                drop(engine);
                let _ = stopped.await;
                driver.abort();
            });
        });
        Self { handle: hear.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Runs a task to its end.
    fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        let (say, hear) = channel();
        self.handle.spawn(async move { say.send(task.await) });
        hear.recv_timeout(PATIENCE + PATIENCE).expect("the task ends")
    }

    fn begin<O: Op>(&self, op: O) -> Box<dyn Begun> {
        let (say, hear) = channel();
        let (cancel, cancelled) = oneshot::channel::<Word>();
        let task = self.handle.spawn(async move {
            let mut op = op;
            ::tokio::select! {
                output = &mut op => { let _ = say.send(O::got(output)); }
                word = cancelled => match word {
                    Ok(Word::Panic) => on_purpose(),
                    _ => { let _ = say.send(op.cancel()); }
                }
            }
        });
        Box::new(Task { handle: self.handle.clone(), task, cancel, hear })
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Form for Tasks {
    fn recv(&self, at: &Endpoint, wanted: Wanted, room: usize, limit: Duration) -> Got {
        match at.post_recv(wanted.pattern, memory(room)) {
            Ok(op) => self.run(within(op, limit)),
            Err(failed) => Got::received(Err(failed)),
        }
    }

    fn send(&self, to: &Peer, tag: u64, load: Buf, limit: Duration) -> Result<usize, OpError> {
        let op = to.post_send(tag, load)?;
        self.run(within(op, limit)).result
    }

    fn begin_recv(&self, at: &Endpoint, wanted: Wanted, room: usize) -> Box<dyn Begun> {
        self.begin(at.post_recv(wanted.pattern, memory(room)).expect("posted"))
    }

    fn begin_send(&self, to: &Peer, tag: u64, load: Buf) -> Box<dyn Begun> {
        self.begin(to.post_send(tag, load).expect("posted"))
    }
}

/// What both kinds of operation are here.
trait Op: Future + Unpin + Send + 'static {
    fn got(output: Self::Output) -> Got;
    fn cancel(self) -> Got;
}

impl Op for RecvOp {
    fn got(output: Self::Output) -> Got {
        Got::received(output)
    }

    fn cancel(self) -> Got {
        Got::received(Self::cancel(self))
    }
}

impl Op for SendOp {
    fn got(output: Result<Buf, Failed>) -> Got {
        Got::sent(output)
    }

    fn cancel(self) -> Got {
        Got::sent(Self::cancel(self))
    }
}

/// tokio's clock ends it, then it is cancelled.
async fn within<O: Op>(mut op: O, limit: Duration) -> Got {
    match ::tokio::time::timeout(limit, &mut op).await {
        Ok(output) => O::got(output),
        Err(_) => op.cancel(),
    }
}

enum Word {
    Cancel,
    Panic,
}

/// A task that holds an operation.
struct Task {
    handle: Handle,
    task: JoinHandle<()>,
    cancel: oneshot::Sender<Word>,
    hear: Receiver<Got>,
}

impl Task {
    /// Waits until the task is gone, whatever has ended it.
    fn gone(handle: &Handle, task: JoinHandle<()>) -> Result<(), ::tokio::task::JoinError> {
        let (say, hear) = channel();
        handle.spawn(async move { say.send(task.await) });
        hear.recv_timeout(PATIENCE).expect("the task ends")
    }
}

impl Begun for Task {
    fn cancel(self: Box<Self>) -> Got {
        let _ = self.cancel.send(Word::Cancel);
        self.hear.recv_timeout(PATIENCE).expect("the task ends")
    }

    fn abandon(self: Box<Self>) -> Option<Got> {
        self.task.abort();
        let _ = Self::gone(&self.handle, self.task);
        self.hear.try_recv().ok()
    }

    fn panic(self: Box<Self>) -> Option<Got> {
        let _ = self.cancel.send(Word::Panic);
        let ended = Self::gone(&self.handle, self.task);
        let given = self.hear.try_recv().ok();
        assert!(given.is_some() || ended.is_err_and(|error| error.is_panic()), "it should have panicked");
        given
    }
}
