//! What a device may still touch: one place for each request of a queue, from the post until its completion was polled.
//!
//! Pure: no device is spoken to. A [`Ring`] stands beside each send and receive queue and is exactly as long, so a place in it
//! is the credit to post.

/// Requests of one queue, in the order posted.
///
/// A request's number counts from 0 and wraps at 32 bits; its place is the number modulo the ring's length, a power of two.
#[derive(Debug)]
pub(crate) struct Ring<P> {
    places: Box<[Place<P>]>,
    depth: u32,
    /// Number of the oldest request whose place is taken.
    tail: u32,
    /// Number that the next request gets.
    head: u32,
}

#[derive(Debug)]
enum Place<P> {
    /// Nothing, or ended already and waiting for older ones (a device that completes out of order).
    Empty,
    Posted(P),
}

impl<P> Ring<P> {
    /// For a queue of `depth` requests.
    pub(crate) fn new(depth: u32) -> Self {
        let places = (0..depth.next_power_of_two()).map(|_| Place::Empty).collect();
        Self { places, depth, tail: 0, head: 0 }
    }

    /// How many requests are out.
    pub(crate) const fn len(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// How many more may be posted.
    pub(crate) const fn room(&self) -> u32 {
        self.depth - self.len()
    }

    /// How many it holds.
    pub(crate) const fn depth(&self) -> u32 {
        self.depth
    }

    /// The number that the next request gets, while there is room.
    #[inline]
    pub(crate) const fn next(&self) -> Option<u32> {
        if self.room() == 0 { None } else { Some(self.head) }
    }

    /// Remembers the request that was posted under the number that `next` said.
    ///
    /// # Panics
    /// Without room: `next` was not asked.
    #[inline]
    pub(crate) fn push(&mut self, payload: P) {
        assert!(self.room() > 0, "a request was posted beyond the depth of its queue");
        let place = self.place(self.head);
        self.places[place] = Place::Posted(payload);
        self.head = self.head.wrapping_add(1);
    }

    /// Takes back the newest request: it was not posted after all.
    pub(crate) fn take_back(&mut self) -> Option<P> {
        if self.len() == 0 {
            return None;
        }
        self.head = self.head.wrapping_sub(1);
        let place = self.place(self.head);
        match std::mem::replace(&mut self.places[place], Place::Empty) {
            Place::Posted(payload) => Some(payload),
            Place::Empty => None,
        }
    }

    #[inline]
    const fn place(&self, number: u32) -> usize {
        number as usize & (self.places.len() - 1)
    }

    /// Whether a number is of a request that is out. A device may say anything.
    #[inline]
    pub(crate) const fn is_out(&self, number: u32) -> bool {
        number.wrapping_sub(self.tail) < self.len()
    }

    /// The oldest request that ended with the completion of `number` in a queue that completes in order: itself, and all
    /// before it. Called until it answers nothing; the last one is `number` itself, marked.
    #[inline]
    pub(crate) fn end_up_to(&mut self, number: u32) -> Option<(P, bool)> {
        if !self.is_out(number) {
            return None;
        }
        while self.is_out(number) {
            let ended = self.tail;
            let place = self.place(ended);
            self.tail = self.tail.wrapping_add(1);
            if let Place::Posted(payload) = std::mem::replace(&mut self.places[place], Place::Empty) {
                return Some((payload, ended == number));
            }
        }
        None
    }

    /// The request `number` alone, in a queue that may complete out of order.
    #[inline]
    pub(crate) fn end_one(&mut self, number: u32) -> Option<P> {
        if !self.is_out(number) {
            return None;
        }
        let place = self.place(number);
        let ended = std::mem::replace(&mut self.places[place], Place::Empty);
        while self.len() > 0 && matches!(self.places[self.place(self.tail)], Place::Empty) {
            self.tail = self.tail.wrapping_add(1);
        }
        match ended {
            Place::Posted(payload) => Some(payload),
            Place::Empty => None,
        }
    }

    /// Everything that is out, oldest first: the queue pair is destroyed and its device touches nothing any more.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = P> + '_ {
        std::iter::from_fn(move || {
            while self.len() > 0 {
                let place = self.place(self.tail);
                self.tail = self.tail.wrapping_add(1);
                if let Place::Posted(payload) = std::mem::replace(&mut self.places[place], Place::Empty) {
                    return Some(payload);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(ring: &mut Ring<u32>, number: u32) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| ring.end_up_to(number)).collect()
    }

    #[test]
    fn a_completion_ends_all_that_were_posted_before_it_and_marks_itself() {
        let mut ring = Ring::new(4);
        for payload in 10..14 {
            assert!(ring.next().is_some());
            ring.push(payload);
        }
        assert_eq!(ring.next(), None);
        assert_eq!(ended(&mut ring, 2), [(10, false), (11, false), (12, true)]);
        assert_eq!(ring.room(), 3);
        assert_eq!(ended(&mut ring, 2), [], "told twice");
        assert_eq!(ended(&mut ring, 77), [], "a number that was never posted");
        assert_eq!(ended(&mut ring, 3), [(13, true)]);
    }

    #[test]
    fn a_ring_is_no_longer_than_its_queue_though_its_places_are_a_power_of_two() {
        let mut ring = Ring::new(5);
        for payload in 0..5 {
            ring.push(payload);
        }
        assert_eq!(ring.next(), None);
        assert_eq!(ring.depth(), 5);
    }

    #[test]
    fn numbers_wrap() {
        let mut ring = Ring::new(2);
        ring.head = u32::MAX;
        ring.tail = u32::MAX;
        ring.push(1);
        ring.push(2);
        assert_eq!(ring.room(), 0);
        assert_eq!(ended(&mut ring, 0), [(1, false), (2, true)]);
        assert_eq!(ring.len(), 0);
    }

    #[test]
    fn out_of_order_completions_free_places_from_the_oldest_on() {
        let mut ring = Ring::new(3);
        for payload in 0..3 {
            ring.push(payload);
        }
        assert_eq!(ring.end_one(1), Some(1));
        assert_eq!(ring.room(), 0, "the oldest is still out");
        assert_eq!(ring.end_one(1), None);
        assert_eq!(ring.end_one(0), Some(0));
        assert_eq!(ring.room(), 2);
        assert_eq!(ring.drain().collect::<Vec<_>>(), [2]);
        assert_eq!(ring.room(), 3);
    }
}
