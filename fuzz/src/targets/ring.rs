//! The ring reader: a real lane of shared memory reads what an input writes into its peer's ring, window and control words. Whatever
//! it is, the lane hands up bodies of bounded length, or ends.
#![allow(unsafe_code)]

use super::{Input, note};
use sinew::shm::{ShmOptions, ShmTransport};
use sinew::transport::{
    Body, Domain, DomainContext, Event, Header, Kind, Lane, LaneError, LaneParams, Link, LinkState,
    ListenScope, Peek, Placement, PollKey, Poller, Role, Sink, Token, Transport,
};
use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SLOTS: usize = 16;
const WINDOW: usize = 4096 + 8192;
/// Words of the control page and the ring.
const CONTROL: usize = 2 * 512;

/// Two domains of this process: the reader's, and that of the peer whose memory is scribbled.
struct Domains {
    reader: Box<dyn Domain>,
    writer: Box<dyn Domain>,
    poller: Arc<Poller>,
    directory: std::path::PathBuf,
}

impl Drop for Domains {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

thread_local! {
    static DOMAINS: RefCell<Option<Domains>> = const { RefCell::new(None) };
}

impl Domains {
    fn new() -> Self {
        let name = format!("sinew-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let poller = Arc::new(Poller::new().expect("a poller"));
        let options = ShmOptions {
            runtime_dir: Some(directory.clone()),
            ring_slots: SLOTS,
            small_window: 4096,
            large_window: 8192,
            frame_max: 4096,
            chunk_max: 4096,
            ..ShmOptions::default()
        };
        let open = |number: u8, owner| {
            let mut engine = [number; 16];
            engine[..4].copy_from_slice(&std::process::id().to_le_bytes());
            engine[4..8].copy_from_slice(&(std::ptr::from_ref(&poller) as usize as u32).to_le_bytes());
            let listen = ListenScope::ThisUser;
            let context = DomainContext { engine, listen, poller: poller.clone(), owner };
            ShmTransport::new(options.clone()).open(context).expect("a domain")
        };
        let (reader, writer) = (open(1, 0), open(2, 1));
        Self { reader, writer, poller, directory }
    }

    /// An open lane, and the first word of what its peer writes.
    fn lanes(&mut self) -> (Box<dyn Lane>, Box<dyn Lane>, *mut u64) {
        let to = self.reader.locators().remove(0);
        let before = halves();
        let mut near = self.writer.dial(&to, 2).expect("dialled");
        let mut far = wait("a connection", || self.reader.accept(3).expect("a listener"));
        ready(&mut *near);
        ready(&mut *far);
        let mut near = lane(near, Role::Dialer, 2);
        let own = halves().into_iter().find(|at| !before.contains(at)).expect("a half of its own");
        let mut far = lane(far, Role::Acceptor, 3);
        let mut events: Vec<Event> = Vec::new();
        wait("open lanes", || {
            events.clear();
            let _ = self.poller.wait(Some(Duration::ZERO), &mut events);
            near.poll(&mut Reader::default(), 1).expect("the writer's");
            far.poll(&mut Reader::default(), 1).expect("the reader's");
            let hello = Header::control(Kind::PROBE, 0);
            (near.try_post(&hello, &[]).is_ok()).then_some(())
        });
        wait("the first frame", || (far.poll(&mut Reader::default(), 1).expect("alive") > 0).then_some(()));
        (near, far, own as *mut u64)
    }
}

fn ready(link: &mut dyn Link) {
    wait("the link", || (link.poll().expect("a link") == LinkState::Ready).then_some(()));
}

fn lane(link: Box<dyn Link>, role: Role, owner: u32) -> Box<dyn Lane> {
    let params = LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout: Duration::from_secs(10) };
    link.into_lane(params).expect("a lane")
}

fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Where the writable halves of this process lie.
fn halves() -> Vec<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    let ours = maps.lines().filter(|line| line.contains("memfd:sinew-lane") && line.contains(" rw-s "));
    ours.filter_map(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok()).collect()
}

#[derive(Default)]
struct Reader {
    outcome: u64,
    bytes: u64,
}

// SAFETY: it names no memory.
unsafe impl Sink for Reader {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        assert!(header.kind != Kind::EMPTY && header.kind.0 < Kind::LANE_PRIVATE);
        assert!(body.len() <= WINDOW, "a body of {} bytes", body.len());
        self.bytes += body.to_vec().iter().map(|&byte| u64::from(byte)).sum::<u64>();
        self.outcome = note(self.outcome, u64::from(header.kind.0) ^ (body.len().ilog2_or_zero() << 8));
    }

    fn place(&mut self, _: &Header, len: usize) -> Placement {
        assert!(len <= WINDOW);
        Placement::Discard
    }

    fn placed(&mut self, _: &Header, _: usize) {}

    fn released(&mut self, _: Token) {}

    fn pulled(&mut self, _: Token, _: Result<(), LaneError>) {}
}

/// The size of a size.
trait Magnitude {
    fn ilog2_or_zero(self) -> u64;
}

impl Magnitude for usize {
    fn ilog2_or_zero(self) -> u64 {
        u64::from(self.checked_ilog2().map_or(0, |log| log + 1))
    }
}

pub(super) fn run(data: &[u8]) -> u64 {
    DOMAINS.with_borrow_mut(|domains| {
        let domains = domains.get_or_insert_with(Domains::new);
        let (near, mut far, own) = domains.lanes();
        // SAFETY: a word of the mapping that `near` keeps, which is longer; all of it is atomics or copied as shared memory is.
        let write = |at: usize, value: u64| unsafe {
            assert!(at < CONTROL + WINDOW / 8);
            std::sync::atomic::AtomicU64::from_ptr(own.add(at))
                .store(value, std::sync::atomic::Ordering::Release);
        };
        let (mut input, mut reader, mut next) = (Input::new(data), Reader::default(), 1u64);
        while !input.is_empty() {
            let code = input.byte();
            match code % 8 {
                0..=3 => {
                    // A frame where the reader looks next, with its lap right unless the code says otherwise.
                    let slot = 512 + (next as usize % SLOTS) * 8;
                    for at in 1..4 + usize::from(code >> 7) * 4 {
                        write(slot + at, input.word());
                    }
                    let lap =
                        if code & 0x40 == 0 { (next / SLOTS as u64 + 1) & 0xff } else { u64::from(code) };
                    write(slot, input.word() & !0xff | lap);
                }
                4 => write(usize::from(input.byte()) % 24, input.word()),
                5 => write(usize::from(input.byte()) * 4 % CONTROL, input.word()),
                6 => write(CONTROL + usize::from(input.byte()) * 6 % (WINDOW / 8), input.word()),
                _ => {
                    let posted = far.try_post(&Header::control(Kind::PROBE, 1), &[IoSlice::new(&[1; 100])]);
                    reader.outcome = note(reader.outcome, u64::from(posted.is_ok()));
                }
            }
            if code & 0x20 != 0
                && let Peek::Frame(shown) = far.peek(false, 1)
            {
                assert!(shown.body.len() <= WINDOW);
                far.take_peeked();
                next += 1;
                continue;
            }
            match far.poll(&mut reader, 4) {
                Ok(done) => next += done as u64,
                Err(error) => {
                    let text = error.to_string();
                    reader.outcome =
                        text.bytes().fold(reader.outcome, |sum, byte| note(sum, u64::from(byte)));
                    assert!(far.poll(&mut reader, 4).is_err(), "what is over stays over");
                    break;
                }
            }
        }
        assert!(far.recover().len() <= SLOTS);
        drop((near, far));
        note(reader.outcome, u64::from(reader.bytes > 0))
    })
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frame = |code: u8, kind: u8, len: u16, words: [u64; 3]| {
        let mut seed = vec![code];
        words.iter().for_each(|word| seed.extend(word.to_le_bytes()));
        seed.extend([0, kind, len as u8, (len >> 8) as u8, 1, 0, 0, 0]);
        seed
    };
    let small = frame(0, 1, 8, [7, 1, 0x1122]);
    let windowed = frame(0, 1, 0xffff, [7, 1, 64 | 200 << 32]);
    let beyond = frame(0, 4, 0xffff, [7, 1, 12_000 | 4000 << 32]);
    let control = [&[4, 8][..], &9u64.to_le_bytes(), &[4, 17], &1u64.to_le_bytes()].concat();
    let answered = [&[7, 7, 7][..], &[4, 8], &2u64.to_le_bytes()].concat();
    let window = [&[6, 3][..], &[0x5a; 8], &windowed[..]].concat();
    let many = small.repeat(40);
    let shown = frame(0x20, 1, 40, [1, 2, 3]).repeat(20);
    vec![small, windowed, beyond, control, answered, window, many, shown, frame(0x40, 1, 8, [0; 3])]
}
