//! Posting what an iterator gives, extended and by lists. On a device inside the process.
#![allow(unsafe_code, reason = "the level that is tested is unsafe")]

mod fake;

use fake::Fake;
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::memory::{Buffer, Gather};
use sinew_verbs::qp::{PostError, QueuePair, Rc, SendRequest};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A queue pair connected to another, which receives nothing: writes go there.
struct Party {
    qp: QueuePair<Rc>,
    peer: QueuePair<Rc>,
    queue: CompletionQueue,
    buffer: Buffer,
}

impl Party {
    fn new(fake: &Fake, extended: bool) -> Self {
        let queue = fake.context.completion_queue(256).build().unwrap();
        let make = || {
            fake.pd
                .queue_pair::<Rc>(&queue)
                .send_depth(40)
                .receive_depth(40)
                .extended(extended)
                .build()
                .unwrap()
        };
        let (a, b) = (make(), make());
        let (to_a, to_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
        let qp = a.connect(&to_b).map_err(|(_, error)| error).unwrap();
        let peer = b.connect(&to_a).map_err(|(_, error)| error).unwrap();
        assert_eq!(qp.as_raw_extended().is_some(), extended);
        Self { qp, peer, queue, buffer: fake.pd.allocate(8).unwrap() }
    }

    /// Empty writes of these numbers, of which each says whether it is too wide to be inline.
    fn post(&mut self, numbers: impl Iterator<Item = (u64, bool)>) -> Result<usize, PostError> {
        let elements: Vec<Gather<'_>> = (0..40).map(|_| self.buffer.gather(0).unwrap()).collect();
        let requests = numbers.map(|(number, is_wide)| {
            let request = SendRequest::send(number, if is_wide { &elements } else { &[] }).signaled();
            if is_wide { request.inline() } else { request }
        });
        // SAFETY: empty messages, of memory that lives longer; the iterator does nothing else.
        unsafe { self.qp.post_each(requests) }
    }

    fn numbers(&self) -> Vec<u64> {
        let mut places = [WorkCompletion::EMPTY; 256];
        let count = self.queue.poll_into(&mut places).unwrap();
        places[..count].iter().map(WorkCompletion::wr_id).collect()
    }

    fn receive(&mut self, count: u64) {
        for number in 1000..1000 + count {
            // SAFETY: it names no memory.
            unsafe { self.peer.post_receives(&mut [sinew_verbs::qp::ReceiveRequest::new(number, &mut [])]) }
                .unwrap();
        }
    }
}

fn both(test: impl Fn(Party)) {
    for extended in [true, false] {
        let fake = Fake::new();
        test(Party::new(&fake, extended));
        fake.finish();
    }
}

#[test]
fn all_of_an_iterator_is_posted_in_its_order_however_many_doorbells_that_takes() {
    both(|mut party| {
        party.receive(32);
        for count in [0, 1, 15, 16] {
            assert_eq!(party.post((0..count).map(|number| (number, false))).unwrap(), count as usize);
            let sent: Vec<u64> = party.numbers().into_iter().filter(|number| *number < 1000).collect();
            assert_eq!(sent, (0..count).collect::<Vec<_>>());
        }
        party.receive(40);
        assert_eq!(party.post((0..40).map(|number| (number, false))).unwrap(), 40, "more than a list");
        let sent: Vec<u64> = party.numbers().into_iter().filter(|number| *number < 1000).collect();
        assert_eq!(sent, (0..40).collect::<Vec<_>>());
    });
}

#[test]
fn a_panic_of_the_iterator_takes_the_batch_back_and_the_queue_pair_works_on() {
    both(|mut party| {
        party.receive(8);
        let numbers = (0..8).map(|number| if number == 5 { panic!("the caller's") } else { (number, false) });
        assert!(catch_unwind(AssertUnwindSafe(|| party.post(numbers))).is_err());
        assert!(party.numbers().is_empty(), "the eight were of one doorbell");
        assert_eq!(party.post([(7, false)].into_iter()).unwrap(), 1);
        assert!(party.numbers().contains(&7));
    });
}

#[test]
fn a_request_that_an_extended_batch_cannot_have_leaves_none_of_it() {
    let fake = Fake::new();
    let mut party = Party::new(&fake, true);
    party.receive(30);
    let answer = party.post((0..30).map(|number| (number, number == 20)));
    assert_eq!(answer.unwrap_err().posted, 0, "all or none");
    assert!(party.numbers().is_empty());
    assert_eq!(party.post([(7, false)].into_iter()).unwrap(), 1);
    drop(party);
    fake.finish();
}
