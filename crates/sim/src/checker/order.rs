//! Matching: messages of one session to one endpoint match in the order sent, receives in the order posted.
//!
//! A pair that is the wrong way round has an excuse when something that was given up stood in between: a receive that had
//! a message and left it, or a message that was fetched and went with its sender.

use super::{Checker, End, EndpointId, Message, Receive, ReceiveId};
use std::collections::HashMap;

impl Checker {
    pub(super) fn order_violations(&self) -> Vec<String> {
        let mut of_endpoint: HashMap<EndpointId, Vec<usize>> = HashMap::new();
        for (number, receive) in self.receives.iter().enumerate() {
            of_endpoint.entry(receive.at).or_default().push(number);
        }
        let mut endpoints: Vec<_> = of_endpoint.into_iter().collect();
        endpoints.sort_by_key(|(endpoint, _)| (endpoint.process, endpoint.number));
        let mut found = Vec::new();
        for (endpoint, receives) in endpoints {
            let to: Vec<usize> =
                (0..self.messages.len()).filter(|&at| self.messages[at].to == endpoint).collect();
            self.judge(&receives, &to, &mut found);
        }
        found
    }

    fn judge(&self, receives: &[usize], messages: &[usize], found: &mut Vec<String>) {
        for &later in receives {
            let Some(got) = self.receives[later].got else { continue };
            self.overtaken(later, got, receives, messages, found);
            self.passed_over(later, got, receives, messages, found);
        }
    }

    /// Messages before `got` on its session that `receive` should have taken, and that a later receive got.
    fn overtaken(
        &self,
        receive: usize,
        got: usize,
        receives: &[usize],
        messages: &[usize],
        found: &mut Vec<String>,
    ) {
        let (taken, by) = (&self.messages[got], &self.receives[receive]);
        for &before in messages.iter().take_while(|&&before| before < got) {
            let message = &self.messages[before];
            let same = (message.from.process, message.session) == (taken.from.process, taken.session);
            let Some(other) = message.got_by else { continue };
            if !same || !self.is_before(receive, other) || !by.wanted.takes(message) {
                continue;
            }
            let left = receives.iter().take_while(|&&earlier| earlier < other);
            let mut left = left.map(|&earlier| &self.receives[earlier]);
            // What a receive leaves goes before or behind what waits: it may overtake, or be overtaken.
            let had = |earlier: &Receive, message: &Message| {
                earlier.wanted.takes(message) && earlier.ended_at.is_none_or(|ended| ended >= message.sent_at)
            };
            let was_left =
                left.any(|earlier| earlier.given_up && (had(earlier, message) || had(earlier, taken)));
            if !was_left && !self.was_busy(by, messages) {
                found.push(format!(
                    "message {before} was overtaken: receive {receive} got {got}, and the later receive {other} got {before}"
                ));
            }
        }
    }

    /// Receives before `receive` that waited for nothing else and should have got its message.
    fn passed_over(
        &self,
        receive: usize,
        got: usize,
        receives: &[usize],
        messages: &[usize],
        found: &mut Vec<String>,
    ) {
        let ended = self.receives[receive].ended_at;
        for &earlier in receives.iter().take_while(|&&earlier| earlier < receive) {
            let passed = &self.receives[earlier];
            let waited = passed.got.is_none()
                && self.is_before(earlier, receive)
                && (passed.ended_at.is_none() || passed.ended_at > ended);
            if !waited || !passed.wanted.takes(&self.messages[got]) {
                continue;
            }
            let fetching = |&other: &usize| {
                let message = &self.messages[other];
                let end = message.got_by.and_then(|by| self.receives[by].ended_at);
                other != got
                    && passed.wanted.takes(message)
                    && end.is_none_or(|end| Some(end) >= passed.ended_at)
            };
            if !self.was_busy(passed, messages) && !messages.iter().any(fetching) {
                found.push(format!(
                    "receive {earlier} was passed over: the later receive {receive} got message {got}"
                ));
            }
        }
    }

    /// Whether a receive may have had a message for a while that was taken back or went with its session.
    fn was_busy(&self, receive: &Receive, messages: &[usize]) -> bool {
        messages.iter().map(|&at| &self.messages[at]).any(|message| {
            message.got_by.is_none()
                && receive.ended_at.is_none_or(|ended| ended >= message.sent_at)
                && receive.wanted.takes(message)
                && self.may_be_gone(message)
        })
    }

    /// Whether one receive was posted before another.
    fn is_before(&self, one: ReceiveId, other: ReceiveId) -> bool {
        one < self.receives[other].after
    }

    fn may_be_gone(&self, message: &Message) -> bool {
        !matches!(message.end, Some(End::Done | End::LetGo | End::Refused))
            || self.is_gone(message.from)
            || self.sessions.is_over((message.from.process, message.session))
    }
}
