//! What a device may still touch: one place for each request of a queue, from the post until its completion was polled.
//!
//! Pure: no device is spoken to. A [`Ring`] stands beside each send and receive queue and is exactly as long, so a place in it
//! is the credit to post.

/// Requests of one queue, in the order posted.
///
/// A request's number counts from 0 and wraps at 32 bits; its place is the number modulo the ring's length, a power of two.
#[derive(Debug)]
pub(crate) struct Ring<P> {
    places: Box<[Option<P>]>,
    depth: u32,
    /// How many may be out: its depth, or none while it is closed.
    limit: u32,
    /// Number of the oldest request whose place is taken.
    tail: u32,
    /// Number that the next request gets.
    head: u32,
}

impl<P> Ring<P> {
    /// For a queue of `depth` requests.
    pub(crate) fn new(depth: u32) -> Self {
        let places = (0..depth.next_power_of_two()).map(|_| None).collect();
        Self { places, depth, limit: depth, tail: 0, head: 0 }
    }

    /// From here on nothing more may be posted; what is out stays.
    pub(crate) const fn close(&mut self) {
        self.limit = 0;
    }

    /// From here on it takes requests again.
    pub(crate) const fn open(&mut self) {
        self.limit = self.depth;
    }

    /// Whether it takes requests at all.
    pub(crate) const fn is_open(&self) -> bool {
        self.limit > 0
    }

    /// How many requests are out.
    pub(crate) const fn len(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// How many more may be posted.
    pub(crate) const fn room(&self) -> u32 {
        self.limit.saturating_sub(self.len())
    }

    /// How many it holds.
    pub(crate) const fn depth(&self) -> u32 {
        self.depth
    }

    /// The number that the next request gets, and its place, while there is room.
    #[inline]
    pub(crate) fn vacancy(&mut self) -> Option<(u32, &mut Option<P>)> {
        if self.len() >= self.limit {
            return None;
        }
        let place = self.place(self.head);
        let place = &mut self.places[place];
        place.is_none().then_some((self.head, place))
    }

    /// The request was posted whose payload was put where [`vacancy`](Self::vacancy) said.
    #[inline]
    pub(crate) const fn advance(&mut self) {
        self.head = self.head.wrapping_add(1);
    }

    /// The number of the first of `count` requests that are posted together, while there is room for all of them, and the place of the last. The
    /// others have none: they end with it.
    #[inline]
    pub(crate) fn room_for(&mut self, count: u32) -> Option<(u32, &mut Option<P>)> {
        if self.room() < count {
            return None;
        }
        let place = self.place(self.head.wrapping_add(count - 1));
        Some((self.head, &mut self.places[place]))
    }

    /// They were posted.
    #[inline]
    pub(crate) const fn advance_by(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
    }

    /// They were not posted after all.
    pub(crate) fn take_back_all(&mut self, count: u32) -> Option<P> {
        let payload = self.take_back();
        self.head = self.head.wrapping_sub(count - 1);
        payload
    }

    /// The first payload from a number on that is out.
    pub(crate) fn first_from(&mut self, number: u32) -> Option<&mut P> {
        let count = self.head.wrapping_sub(number);
        let at =
            (0..count).map(|more| number.wrapping_add(more)).find(|number| self.get(*number).is_some())?;
        self.place_of(at).as_mut()
    }

    /// Takes back the newest request: it was not posted after all.
    pub(crate) fn take_back(&mut self) -> Option<P> {
        if self.len() == 0 {
            return None;
        }
        self.head = self.head.wrapping_sub(1);
        let place = self.place(self.head);
        self.places[place].take()
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

    /// Whether a number is of a request that did not end yet: one behind others may have, and waits for them.
    pub(crate) fn has(&self, number: u32) -> bool {
        self.is_out(number) && self.get(number).is_some()
    }

    /// What is in the place of a number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&P> {
        self.places[self.place(number)].as_ref()
    }

    /// The number of the oldest request that is out.
    #[inline]
    pub(crate) const fn oldest(&self) -> u32 {
        self.tail
    }

    /// The oldest request has ended, and was taken out of its place.
    #[inline]
    pub(crate) const fn skip_oldest(&mut self) {
        self.tail = self.tail.wrapping_add(1);
    }

    /// The place of a number.
    #[inline]
    pub(crate) fn place_of(&mut self, number: u32) -> &mut Option<P> {
        let place = self.place(number);
        &mut self.places[place]
    }

    /// Ends the oldest request: a queue that completes in order is done with all that were posted before the one that completed.
    #[inline]
    pub(crate) fn end_oldest(&mut self) -> Option<P> {
        let place = self.place(self.tail);
        // Nothing, in a place of prepared requests that is not the last.
        let payload = self.places[place].take()?;
        self.tail = self.tail.wrapping_add(1);
        Some(payload)
    }

    /// The request `number` alone, in a queue that may complete out of order.
    #[inline]
    pub(crate) fn end_one(&mut self, number: u32) -> Option<P> {
        if !self.is_out(number) {
            return None;
        }
        let place = self.place(number);
        let ended = self.places[place].take();
        while self.len() > 0 && self.places[self.place(self.tail)].is_none() {
            self.tail = self.tail.wrapping_add(1);
        }
        ended
    }

    /// Everything that is out, oldest first: the queue pair is destroyed and its device touches nothing any more.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = P> + '_ {
        std::iter::from_fn(move || {
            while self.len() > 0 {
                let place = self.place(self.tail);
                self.tail = self.tail.wrapping_add(1);
                if let Some(payload) = self.places[place].take() {
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

    impl<P> Ring<P> {
        fn push(&mut self, payload: P) {
            let (_, place) = self.vacancy().unwrap();
            *place = Some(payload);
            self.advance();
        }

        fn next(&mut self) -> Option<u32> {
            self.vacancy().map(|(number, _)| number)
        }
    }

    #[test]
    fn the_oldest_ends_first_and_a_number_that_is_not_out_is_known() {
        let mut ring = Ring::new(4);
        for payload in 10..14 {
            assert!(ring.next().is_some());
            ring.push(payload);
        }
        assert_eq!(ring.next(), None);
        assert!(ring.is_out(2) && !ring.is_out(77), "a number that was never posted");
        for payload in 10..13 {
            assert_eq!((ring.oldest(), ring.end_oldest()), (payload - 10, Some(payload)));
        }
        assert_eq!(ring.room(), 3);
        assert!(!ring.is_out(2) && ring.is_out(3), "told twice");
        assert_eq!(ring.end_oldest(), Some(13));
        assert_eq!(ring.end_oldest(), None);
    }

    #[test]
    fn a_closed_ring_takes_nothing_and_gives_back_what_is_out() {
        let mut ring = Ring::new(2);
        ring.push('a');
        ring.close();
        assert_eq!((ring.next(), ring.room(), ring.is_open(), ring.len()), (None, 0, false, 1));
        assert_eq!(ring.end_oldest(), Some('a'));
        ring.open();
        assert_eq!((ring.next(), ring.room()), (Some(1), 2));
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
        assert!(ring.is_out(0) && !ring.is_out(1));
        assert_eq!((ring.end_oldest(), ring.end_oldest(), ring.len()), (Some(1), Some(2), 0));
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
