//! What the exchange promises: by its bytes alone, and over sockets.

mod bytes;
mod sockets;

use super::connection::{Connection, Ended, Event, Local};
use super::wire::{self, Mode};

/// What rank `from` gives to rank `to`.
fn value(from: u32, to: u32) -> Vec<u8> {
    format!("of {from} for {to};").into_bytes().repeat(3)
}

fn local(rank: u32, world_size: u32, job: &str, secret: Option<&str>) -> Local {
    let values: Vec<Vec<u8>> = (0..world_size).map(|to| value(rank, to)).collect();
    Local {
        rank,
        world_size,
        round: 1,
        job: wire::job(job.as_bytes()),
        incarnation: 1000 + u64::from(rank),
        key: wire::key(secret.map(str::as_bytes)),
        mode: if secret.is_some() { Mode::Secret } else { Mode::Open },
        value_max: 4096,
        digests: values.iter().map(|value| wire::value_digest(value)).collect(),
        values,
        incarnations: vec![None; world_size as usize],
    }
}

/// One side of a dialogue without sockets.
struct Talker<'a> {
    local: &'a Local,
    connection: Connection,
    events: Vec<Event>,
    ended: Option<Ended>,
    /// All that it has written.
    written: Vec<u8>,
}

impl<'a> Talker<'a> {
    fn dialer(local: &'a Local, peer: u32) -> Self {
        Self::new(local, Connection::dialer(local, peer, [1; 16]))
    }

    fn acceptor(local: &'a Local) -> Self {
        Self::new(local, Connection::acceptor(local, [2; 16]))
    }

    fn new(local: &'a Local, connection: Connection) -> Self {
        Self { local, connection, events: Vec::new(), ended: None, written: Vec::new() }
    }

    /// Takes what it can of `bytes`; answers how much that was.
    fn hear(&mut self, mut bytes: &[u8]) -> usize {
        let whole = bytes.len();
        while self.ended.is_none() {
            let count = self.connection.wanted().min(bytes.len());
            if count == 0 && !self.connection.is_empty_value() {
                break;
            }
            match self.connection.handle_input(&bytes[..count], self.local) {
                Ok(event) => self.events.push(event),
                Err(ended) => self.ended = Some(ended),
            }
            bytes = &bytes[count..];
        }
        whole - bytes.len()
    }

    fn say(&mut self) -> Vec<u8> {
        let said = self.connection.poll_output().to_vec();
        self.connection.handle_written(said.len());
        self.written.extend_from_slice(&said);
        said
    }

    fn value(&self) -> Option<&[u8]> {
        self.events.iter().find_map(|event| match event {
            Event::Value(_, value) => Some(value.as_slice()),
            _ => None,
        })
    }

    fn is_finished(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Finished(..)))
    }
}

/// Lets two speak until neither has anything to say; `on_the_way` may change what is said, told how many bytes that side said before.
fn speak(a: &mut Talker<'_>, b: &mut Talker<'_>, mut on_the_way: impl FnMut(bool, usize, &mut Vec<u8>)) {
    loop {
        let before = (a.written.len(), b.written.len());
        let mut from_a = a.say();
        let mut from_b = b.say();
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        on_the_way(true, before.0, &mut from_a);
        on_the_way(false, before.1, &mut from_b);
        b.hear(&from_a);
        a.hear(&from_b);
    }
}
