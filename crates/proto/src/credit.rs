//! Flow control by absolute limits: how much a sender may send to an endpoint, and to all endpoints of a session together.
//!
//! Called by the engine's session. A [`Sender`] counts what was sent against the newest limit heard; a [`Receiver`] grants
//! limits as memory becomes free and says when a new one is worth a frame. Limits and counts run from the start of the
//! session and never go down, so a limit that comes twice, late or out of order changes nothing, and a replay after a lost
//! lane needs no care. What is counted: the bytes of eager messages ([`message_cost`]) and the number of envelopes.
//!
//! # No deadlock
//! A new limit is announced once half a window has become free. A message that costs more than half a window could wait for
//! ever and is [`Take::Never`]: it travels as an envelope. Any other goes through once the receiver has freed what it holds.

/// Bytes that a message costs beyond its payload: what the receiver keeps beside the data.
pub const MESSAGE_OVERHEAD: u64 = 64;

/// Credit that an eager message of `len` bytes costs.
#[must_use]
#[inline]
pub const fn message_cost(len: u64) -> u64 {
    len.saturating_add(MESSAGE_OVERHEAD)
}

/// Whether credit was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// It was, and is taken.
    Taken,
    /// Not now; a new limit will bring it. Nothing was taken.
    Wait,
    /// More than half the window: it would never do. Nothing was taken.
    Never,
}

/// The sender's side of one count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendCredit {
    sent: u64,
    limit: u64,
    /// Half the window: most that one message may cost.
    cost_max: u64,
}

impl SendCredit {
    /// With the limit that the peer's hello grants: its window.
    #[must_use]
    pub const fn new(limit: u64) -> Self {
        Self { sent: 0, limit, cost_max: limit / 2 }
    }

    /// What may be sent now.
    #[must_use]
    #[inline]
    pub const fn available(&self) -> u64 {
        self.limit - self.sent
    }

    /// All that was sent since the start.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether it can be taken once there is credit: a message that costs more than half a window never can.
    #[must_use]
    #[inline]
    pub const fn can_ever(&self, cost: u64) -> bool {
        cost <= self.cost_max
    }

    /// Whether [`SendCredit::try_take`] would take it now.
    #[must_use]
    #[inline]
    pub const fn affords(&self, cost: u64) -> bool {
        matches!(self.check(cost), Take::Taken)
    }

    /// Whether there is credit, and if so takes it.
    #[inline]
    pub const fn try_take(&mut self, cost: u64) -> Take {
        let answer = self.check(cost);
        if matches!(answer, Take::Taken) {
            self.sent += cost;
        }
        answer
    }

    /// What messages may cost together, each of them at most as much: what [`SendCredit::take_afforded`] takes.
    #[must_use]
    pub const fn affordable(&self) -> u64 {
        let available = self.available();
        if available < self.cost_max { available } else { self.cost_max }
    }

    /// Takes for several messages what [`SendCredit::affordable`] has allowed.
    pub const fn take_afforded(&mut self, cost: u64) {
        debug_assert!(cost <= self.available());
        self.sent += cost;
    }

    #[inline]
    const fn check(&self, cost: u64) -> Take {
        if cost > self.cost_max {
            Take::Never
        } else if cost > self.available() {
            Take::Wait
        } else {
            Take::Taken
        }
    }

    /// A limit came. Returns whether it is news; an older or smaller one is ignored.
    #[inline]
    pub const fn raise(&mut self, limit: u64) -> bool {
        let news = limit > self.limit;
        if news {
            self.limit = limit;
        }
        news
    }
}

/// The peer sent more than it was granted: the session ends with that reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overrun {
    /// What it has sent in all, with this; saturated.
    pub received: u64,
    /// What it was granted in all.
    pub limit: u64,
}

impl std::fmt::Display for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { received, limit } = self;
        write!(f, "the peer sent {received} where {limit} was granted: it broke the protocol")
    }
}

impl std::error::Error for Overrun {}

/// The receiver's side of one count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveCredit {
    window: u64,
    received: u64,
    freed: u64,
    announced: u64,
    /// Where `freed` stands when half a window has become free since the last announcement.
    due_at: u64,
}

impl ReceiveCredit {
    /// Grants `window` at the start (said in the hello) and never more than that at a time.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self { window, received: 0, freed: 0, announced: window, due_at: due_at(window, window) }
    }

    /// Something came.
    ///
    /// # Errors
    /// [`Overrun`]; nothing is counted then.
    #[inline]
    pub const fn receive(&mut self, cost: u64) -> Result<(), Overrun> {
        let received = self.received.saturating_add(cost);
        if received > self.announced {
            return Err(Overrun { received, limit: self.announced });
        }
        self.received = received;
        Ok(())
    }

    /// Something came that is not held at all: [`ReceiveCredit::receive`] and [`ReceiveCredit::free`] in one.
    ///
    /// # Errors
    /// [`Overrun`]; nothing is counted then.
    #[inline]
    pub const fn pass(&mut self, cost: u64) -> Result<(), Overrun> {
        let received = self.received.saturating_add(cost);
        if received > self.announced {
            return Err(Overrun { received, limit: self.announced });
        }
        self.received = received;
        self.freed += cost;
        Ok(())
    }

    /// What may come and go, by [`ReceiveCredit::pass_allowed`], before it is an overrun or a new limit is worth a frame.
    #[must_use]
    pub const fn headroom(&self) -> u64 {
        let (granted, quiet) = (self.announced - self.received, self.due_at.saturating_sub(self.freed));
        if granted < quiet { granted } else { quiet }
    }

    /// [`ReceiveCredit::pass`] of what [`ReceiveCredit::headroom`] has allowed.
    pub const fn pass_allowed(&mut self, cost: u64) {
        debug_assert!(cost <= self.announced - self.received);
        self.received += cost;
        self.freed += cost;
    }

    /// What came before is not held any more. More than is held counts as all of it.
    #[inline]
    pub const fn free(&mut self, cost: u64) {
        let held = self.held();
        self.freed += if cost < held { cost } else { held };
    }

    /// What is held now; at most the window.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.received - self.freed
    }

    /// Whether half a window has become free since the last announcement.
    #[must_use]
    #[inline]
    pub const fn is_due(&self) -> bool {
        self.freed >= self.due_at
    }

    const fn grant(&self) -> u64 {
        self.freed.saturating_add(self.window)
    }

    /// The limit to announce; counts as announced.
    pub const fn announce(&mut self) -> u64 {
        if self.grant() > self.announced {
            self.announced = self.grant();
            self.due_at = due_at(self.announced, self.window);
        }
        self.announced
    }

    /// The limit that was announced last, to be said again when a lane was lost.
    #[must_use]
    pub const fn announced(&self) -> u64 {
        self.announced
    }
}

/// How much must be free in all before a limit beyond `announced` is worth a frame: half a window of news, and some news.
const fn due_at(announced: u64, window: u64) -> u64 {
    let news = if window / 2 == 0 { 1 } else { window / 2 };
    announced.saturating_sub(window).saturating_add(news)
}

/// The sender's counts towards one endpoint, or towards all of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Bytes of eager messages.
    pub bytes: SendCredit,
    /// Envelopes.
    pub envelopes: SendCredit,
}

impl Sender {
    /// With what the peer's hello grants.
    #[must_use]
    pub const fn new(bytes: u64, envelopes: u64) -> Self {
        Self {
            bytes: SendCredit::new(bytes),
            envelopes: SendCredit { cost_max: 1, ..SendCredit::new(envelopes) },
        }
    }

    /// A credit frame came. Returns whether it is news.
    #[inline]
    pub const fn raise(&mut self, bytes: u64, envelopes: u64) -> bool {
        let news = self.bytes.raise(bytes);
        self.envelopes.raise(envelopes) || news
    }
}

/// Takes credit for an eager message of `len` bytes from the endpoint's and the session's counts: both or neither.
#[inline]
pub const fn try_take_message(endpoint: &mut Sender, session: &mut Sender, len: u64) -> Take {
    take_both(&mut endpoint.bytes, &mut session.bytes, message_cost(len))
}

/// Takes credit for an envelope from the endpoint's and the session's counts: both or neither.
#[inline]
pub const fn try_take_envelope(endpoint: &mut Sender, session: &mut Sender) -> Take {
    take_both(&mut endpoint.envelopes, &mut session.envelopes, 1)
}

const fn take_both(one: &mut SendCredit, other: &mut SendCredit, cost: u64) -> Take {
    match (one.check(cost), other.check(cost)) {
        (Take::Never, _) | (_, Take::Never) => Take::Never,
        (Take::Wait, _) | (_, Take::Wait) => Take::Wait,
        (Take::Taken, Take::Taken) => {
            one.sent += cost;
            other.sent += cost;
            Take::Taken
        }
    }
}

/// The receiver's counts for one endpoint, or for all of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// Bytes of eager messages.
    pub bytes: ReceiveCredit,
    /// Envelopes.
    pub envelopes: ReceiveCredit,
}

impl Receiver {
    /// With what the own hello grants.
    #[must_use]
    pub const fn new(bytes: u64, envelopes: u64) -> Self {
        Self { bytes: ReceiveCredit::new(bytes), envelopes: ReceiveCredit::new(envelopes) }
    }

    /// The limits for a credit frame (bytes, envelopes), if one is worth it now; they count as announced.
    #[inline]
    pub const fn poll_announcement(&mut self) -> Option<(u64, u64)> {
        if self.bytes.is_due() || self.envelopes.is_due() {
            Some((self.bytes.announce(), self.envelopes.announce()))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
