//! What the events have in common that end an operation early: cancel, timeout, drop, panic.
//!
//! A receive that is ended early leaves its message, come or to come, whole or in part, to the next receive, and its memory
//! alone. A send that is ended early has arrived once or not at all, and is taken back where the form says so.

use crate::common::PATIENCE;
use crate::forms::{Got, Wanted};
use crate::partner::{Partner, all, drink, pour};
use crate::world::{Cell, FLOW, FLOW_END, LATE, World, fill, fill_up, load, number_of};
use sinew::OpError;
use std::time::{Duration, Instant};

/// A world with its partner.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) partner: Partner,
}

impl Stage {
    pub(crate) fn new(cell: Cell) -> Self {
        Self::of(World::new(cell))
    }

    pub(crate) fn of(world: World) -> Self {
        let partner = Partner::new(&world);
        Self { world, partner }
    }

    pub(crate) fn wanted(&self, tag: u64) -> Wanted {
        Wanted::from(tag, self.partner.to_b.source())
    }

    /// Receives in the form.
    pub(crate) fn recv(&self, tag: u64) -> Got {
        self.world.form.recv(&self.world.a, self.wanted(tag), self.world.room(), PATIENCE)
    }

    pub(crate) fn finish(self) {
        drop(self.partner);
        self.world.finish();
    }

    /// Lets the engine under test go on for a moment of the given length.
    pub(crate) fn pause(&self, moment: Duration) {
        let start = Instant::now();
        while start.elapsed() < moment {
            self.world.here.progress();
            std::thread::yield_now();
        }
    }

    /// Ended before its message was sent.
    pub(crate) fn receive_before_its_message(&self, end: impl Fn(Wanted)) {
        for number in 0..2 {
            end(self.wanted(LATE));
            let sent = self.partner.post(self.world.cell.size, LATE, number);
            assert_eq!(number_of(self.recv(LATE).bytes()), number, "left to the next receive");
            sent.wait_within(PATIENCE).unwrap();
        }
    }

    /// Ended again and again while a stream arrives. `end` gets longer and longer moments, and answers what it took.
    pub(crate) fn receives_of_a_stream(&self, end: impl Fn(Wanted, Duration) -> Option<Got>) {
        let size = self.world.cell.size;
        let many = size.many();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| pour(&self.partner.to_a, size, |sent| sent == many).unwrap());
            let (mut number, mut early) = (0, 0);
            while number < many {
                for attempt in 0..3 {
                    let got = end(self.wanted(FLOW), moment(number + attempt));
                    match got.as_ref().map(|got| &got.result) {
                        Some(Ok(_)) => {
                            assert_eq!(
                                number_of(got.unwrap().bytes()),
                                number,
                                "lost, doubled or out of order"
                            );
                            number += 1;
                        }
                        None | Some(Err(OpError::TimedOut { .. } | OpError::Cancelled)) => early += 1,
                        Some(Err(error)) => panic!("{error}"),
                    }
                    if number == many {
                        break;
                    }
                }
                if number < many {
                    assert_eq!(number_of(self.recv(FLOW).bytes()), number, "left to the next receive");
                    number += 1;
                }
            }
            assert_eq!(self.recv_end(), many);
            assert_eq!(sender.join().unwrap(), many);
            println!("{early} receives ended early, {many} messages came");
        });
    }

    /// The number in the end of the stream.
    pub(crate) fn recv_end(&self) -> u64 {
        number_of(self.recv(FLOW_END).bytes())
    }

    /// Sends to one that takes nothing; `end` ends them early and answers whether they are taken back. Those that are not go on.
    pub(crate) fn sends_that_wait(&self, end: impl Fn(u64) -> bool) {
        let (to_idle, size) = (&self.partner.to_idle, self.world.cell.size);
        let filled = fill_up(to_idle, size);
        let mut expected: Vec<u64> = (0..filled).collect();
        expected.extend((filled..filled + 2).filter(|&number| !end(number)));
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| drink(&self.partner.idle, size).unwrap());
            self.world.form.send(to_idle, FLOW, load(to_idle, size, filled + 2), PATIENCE).unwrap();
            self.send_end(to_idle, filled + 3);
            expected.push(filled + 2);
            assert_eq!(drain.join().unwrap(), expected, "exactly what was not taken back, in order");
        });
    }

    fn send_end(&self, to: &sinew::Peer, number: u64) {
        let mut end = [0; 8];
        fill(&mut end, number);
        to.message(FLOW_END).timeout(PATIENCE).send(&end).unwrap();
    }

    /// Ended early while the receiver takes what comes. `end` answers whether the message must have arrived; else it may.
    pub(crate) fn sends_of_a_stream(&self, end: impl Fn(u64, Duration) -> bool) {
        let size = self.world.cell.size;
        let many = size.many();
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| drink(&self.partner.b, size).unwrap());
            let sure: Vec<u64> = (0..many).filter(|&number| end(number, moment(number))).collect();
            self.send_end(&self.partner.to_b, many);
            let came = drain.join().unwrap();
            assert!(sure.iter().all(|number| came.contains(number)), "{sure:?} were sent, {came:?} came");
            assert!(came.iter().all(|&number| number < many));
            if sure.len() as u64 == many {
                all(&came);
            }
            println!("{} of {many} sends were not ended early, {} came", sure.len(), came.len());
        });
    }
}

/// From nothing to as long as a long message takes.
fn moment(number: u64) -> Duration {
    Duration::from_micros([0, 20, 150, 600][number as usize % 4])
}
