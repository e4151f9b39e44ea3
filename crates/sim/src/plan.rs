//! What a seed decides before anything runs: hosts, lanes, options, the network's manners, and when which fault happens.
//!
//! Read by the world. It must draw from its own generator only, so that a plan can be looked at without running it.

use crate::lane::Style;
use crate::net::{Kind, MICROS, MILLIS, Nanos, Path, SECONDS};
use crate::random::Random;
use sinew_engine::EngineOptions;
use sinew_transport::LaneCount;
use std::time::Duration;

/// How rough the network and its inhabitants are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// Nothing is lost, nobody dies.
    Calm,
    /// Packets are lost, doubled, late; connections break; ways are blocked for a while. No session may end by it.
    Rough,
    /// Besides, processes die, stop and are born again, and ways are blocked for longer than `peer_timeout`.
    Wild,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Every connection between two hosts, or one of them, breaks.
    Cut {
        one: usize,
        other: usize,
        all: bool,
    },
    /// Nothing passes from one host to another, both ways or one, for so long.
    Block {
        from: usize,
        to: usize,
        both: bool,
        lasts: Nanos,
    },
    /// What was blocked passes again.
    Unblock {
        from: usize,
        to: usize,
        both: bool,
    },
    /// The process dies; the machine with it, if it `crash`es.
    Kill {
        host: usize,
        crash: bool,
    },
    /// The engine is closed in order.
    Close {
        host: usize,
    },
    /// Another process starts where one died.
    Birth {
        host: usize,
    },
    /// The process is stopped, its kernel goes on.
    Stop {
        host: usize,
        lasts: Nanos,
    },
    Continue {
        host: usize,
    },
    /// The engine gives a session up, as after `peer_timeout`.
    Lose {
        host: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) weather: Weather,
    pub(crate) hosts: usize,
    pub(crate) machines: Vec<usize>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) styles: Vec<Style>,
    pub(crate) secret: bool,
    pub(crate) options: EngineOptions,
    pub(crate) peer_timeout: Nanos,
    pub(crate) eager_max: usize,
    /// From each host to each.
    pub(crate) paths: Vec<Path>,
    pub(crate) faults: Vec<(Nanos, Fault)>,
    /// Handlers and functions at the end of operations, besides the other forms.
    pub(crate) callbacks: bool,
    /// Longest message.
    pub(crate) len_max: usize,
    /// From which length on buffers of the engine's pool are sent.
    pub(crate) lend_min: usize,
    /// Things that each application does.
    pub(crate) acts: u64,
    /// Longest pause between them.
    pub(crate) think: Nanos,
    /// Longest time for which an engine that has something to do is not run.
    pub(crate) lazy: Nanos,
}

impl Plan {
    pub(crate) fn draw(seed: u64, weather: Option<Weather>) -> Self {
        let mut random = Random::new(seed ^ 0x51_4d_55_4c_41_54_45);
        let drawn =
            *random.pick(&[Weather::Calm, Weather::Rough, Weather::Rough, Weather::Wild, Weather::Wild]);
        let weather = weather.unwrap_or(drawn);
        let hosts = 2 + random.index(3);
        let apart = random.chance(500);
        let machines: Vec<usize> = (0..hosts).map(|host| if apart { host % 2 } else { 0 }).collect();
        let mut kinds = match random.below(6) {
            0 => vec![Kind::Near],
            1 => vec![Kind::Mid],
            2 => vec![Kind::Far],
            3 => vec![Kind::Near, Kind::Far],
            4 => vec![Kind::Mid, Kind::Far],
            _ => Kind::ALL.to_vec(),
        };
        if apart && !kinds.contains(&Kind::Far) {
            kinds.push(Kind::Far);
        }
        let secret = random.chance(60);
        let mut lanes = Random::new(seed ^ 0x4c_41_4e_45_53);
        let styles = (0..hosts).map(|_| style(&mut random, &mut lanes, secret)).collect();
        let peer_timeout = *random.pick(&[2, 4]) * SECONDS;
        let eager_max = *random.pick(&[256usize, 2 << 10, 8 << 10]);
        let options = options(&mut random, peer_timeout, eager_max);
        let paths = (0..hosts * hosts).map(|_| path(&mut random, weather)).collect();
        let acts = 20 + random.below(60);
        let think = *random.pick(&[200 * MICROS, 2 * MILLIS, 20 * MILLIS]);
        let lazy = *random.pick(&[2 * MICROS, 100 * MICROS, 3 * MILLIS]);
        let span = acts * think / 2 + 20 * MILLIS;
        let faults = faults(&mut random, weather, hosts, span, peer_timeout);
        Self {
            weather,
            hosts,
            machines,
            kinds,
            styles,
            secret,
            options,
            peer_timeout,
            eager_max,
            paths,
            faults,
            callbacks: Random::new(seed ^ 0x43_41_4c_4c_53).chance(500),
            len_max: usize::MAX,
            lend_min: 64 << 10,
            acts,
            think,
            lazy,
        }
    }

    /// As little of it as an interpreter can do.
    pub(crate) fn shorten(&mut self) {
        self.hosts = 2;
        self.machines.truncate(2);
        self.styles.truncate(2);
        self.paths.truncate(4);
        self.faults.retain(|(_, fault)| fault.hosts().all(|host| host < 2));
        self.acts = self.acts.min(24);
        (self.len_max, self.lend_min) = (3 << 10, 256);
    }
}

impl Fault {
    /// Whom it hits.
    fn hosts(self) -> impl Iterator<Item = usize> {
        let (one, other) = match self {
            Self::Cut { one, other, .. } => (one, other),
            Self::Block { from, to, .. } | Self::Unblock { from, to, .. } => (from, to),
            Self::Kill { host, .. }
            | Self::Close { host }
            | Self::Birth { host }
            | Self::Stop { host, .. }
            | Self::Continue { host }
            | Self::Lose { host } => (host, host),
        };
        [one, other].into_iter()
    }
}

/// One or several lanes are drawn by a generator of their own.
fn style(random: &mut Random, lanes: &mut Random, secret: bool) -> Style {
    let min = *lanes.pick(&[1, 1, 1, 2, 3]);
    Style {
        lanes: LaneCount { min, max: min + *lanes.pick(&[0, 0, 2]) },
        keeps_port: random.chance(500),
        acknowledge_every: *random.pick(&[1, 4, 1000]),
        piece: *random.pick(&[700, 4 << 10, 64 << 10]),
        retention: *random.pick(&[48 << 10, 256 << 10]),
        vouches: !secret,
    }
}

fn options(random: &mut Random, peer_timeout: Nanos, eager_max: usize) -> EngineOptions {
    let tight = random.chance(500);
    let window: usize = if tight { 24 << 10 } else { 1 << 20 };
    EngineOptions::default()
        .timeout(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(5))
        .handshake_timeout(Duration::from_millis(1500))
        .peer_timeout(Duration::from_nanos(peer_timeout))
        .spin(Duration::ZERO)
        .eager_max(eager_max)
        .endpoint_window(window)
        .session_window(window + window / 2)
        .send_buffer(if tight { 16usize << 10 } else { 1 << 20 })
        .endpoint_envelopes(if tight { 6usize } else { 1 << 10 })
        .session_envelopes(if tight { 10usize } else { 1 << 12 })
}

fn path(random: &mut Random, weather: Weather) -> Path {
    let delay = *random.pick(&[20 * MICROS, 200 * MICROS, 5 * MILLIS]);
    let jitter = *random.pick(&[0, delay / 4, delay * 3]);
    let (loss, doubled) = match weather {
        Weather::Calm => (0, 0),
        _ => (*random.pick(&[0, 5, 50, 200]), *random.pick(&[0, 0, 30, 200])),
    };
    Path { blocked: false, loss, doubled, delay, jitter }
}

fn faults(
    random: &mut Random,
    weather: Weather,
    hosts: usize,
    span: Nanos,
    peer_timeout: Nanos,
) -> Vec<(Nanos, Fault)> {
    let mut faults = Vec::new();
    if weather == Weather::Calm {
        return faults;
    }
    for _ in 0..random.below(8) {
        let at = random.below(span);
        let (one, other) = two(random, hosts);
        if random.chance(600) {
            faults.push((at, Fault::Cut { one, other, all: random.chance(400) }));
        } else {
            let both = random.chance(600);
            let lasts = random.below(peer_timeout / 8);
            faults.push((at, Fault::Block { from: one, to: other, both, lasts }));
        }
    }
    if weather == Weather::Wild {
        for _ in 0..1 + random.below(3) {
            let at = random.below(span);
            let (one, other) = two(random, hosts);
            let pause = random.below(span) + MILLIS;
            match random.below(6) {
                0 => {
                    let (both, lasts) = (random.chance(600), peer_timeout + random.below(peer_timeout));
                    faults.push((at, Fault::Block { from: one, to: other, both, lasts }));
                }
                1 | 2 => {
                    faults.push((at, Fault::Kill { host: one, crash: random.chance(400) }));
                    faults.push((at + pause, Fault::Birth { host: one }));
                }
                3 => {
                    faults.push((at, Fault::Close { host: one }));
                    faults.push((at + pause, Fault::Birth { host: one }));
                }
                4 => faults.push((at, Fault::Stop { host: one, lasts: random.below(2 * peer_timeout) })),
                _ => faults.push((at, Fault::Lose { host: one })),
            }
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn two(random: &mut Random, hosts: usize) -> (usize, usize) {
    let one = random.index(hosts);
    (one, (one + 1 + random.index(hosts - 1)) % hosts)
}
