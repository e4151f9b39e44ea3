//! Another engine, as far as it makes lanes.

use super::net::{Line, Net};
use super::site::Site;
use sinew_proto::handshake::{self, Handshake, PeerHello, Step, Trust, domain_hash};
use sinew_transport::Locator;
use sinew_wire::hello::{Credits, Features, Hello, Versions};

/// Another engine, as far as it makes lanes.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) id: [u8; 16],
    pub(super) incarnation: u64,
    pub(super) domain: &'static str,
    pub(super) hello: Hello,
    pub(super) features: Features,
    pub(super) trust: Trust,
}

/// An engine below and one above any that a test has.
pub(super) const LESS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub(super) const GREATER: [u8; 16] = [255; 16];

impl Peer {
    pub(super) fn new(id: [u8; 16]) -> Self {
        let credits = Credits {
            session_bytes: 1 << 20,
            endpoint_bytes: 1 << 16,
            session_envelopes: 64,
            endpoint_envelopes: 32,
        };
        let hello = Hello {
            engine: id,
            incarnation: 0,
            domain: [0; 32],
            expected_engine: [0; 16],
            expected_incarnation: 0,
            epoch: 0,
            resumes: false,
            credits,
            frame_max: 0,
            process: 0,
            lane: 7,
            encryption_wanted: false,
            pinned: String::new(),
            locators: String::new(),
        };
        let trust = Trust { secret: None, plain: true };
        Self { id, incarnation: 9, domain: "rig", hello, features: Features::THIS, trust }
    }

    /// Who can be dialled at these places.
    pub(super) fn at(id: [u8; 16], places: &[Locator]) -> Self {
        let mut peer = Self::new(id);
        let places: Vec<String> = places.iter().map(ToString::to_string).collect();
        peer.hello.locators = places.join(" ");
        peer
    }

    pub(super) fn expected(&self) -> Option<([u8; 16], u64)> {
        Some((self.id, self.incarnation))
    }

    fn config(&self) -> handshake::Config {
        handshake::Config {
            engine: self.id,
            incarnation: self.incarnation,
            domain: domain_hash(self.domain),
            trust: self.trust.clone(),
            versions: Versions::THIS,
            features: self.features.0,
            required: 0,
        }
    }

    /// Answers a link that the engine has dialled; what that has said of itself.
    pub(super) fn answers(&self, site: &Site, line: &Line) -> PeerHello {
        let mut handshake = Handshake::acceptor(self.config(), [77; 32]);
        site.stirs(line);
        let first = line.state().said.pop_front().expect("the engine begins");
        let Ok(Step::Introduced(engine)) = handshake.handle(&first) else { panic!("it says who it is") };
        let hello =
            Hello { lane: engine.hello.lane, pinned: engine.hello.pinned.clone(), ..self.hello.clone() };
        line.state().coming.push_back(handshake.answer(hello).unwrap());
        site.stirs(line);
        let third = line.state().said.pop_front();
        if let Some(third) = third {
            assert!(matches!(handshake.handle(&third), Ok(Step::Done(_))));
        }
        *engine
    }

    /// Dials, and says why the engine has refused, if it has.
    pub(super) fn dials(&self, site: &Site, net: &Net) -> (Line, Result<PeerHello, String>) {
        let line = Line::to(net);
        self.speaks(site, net, &line)
            .map_or_else(|why| (line.clone(), Err(why)), |engine| (line.clone(), Ok(engine)))
    }

    pub(super) fn speaks(&self, site: &Site, net: &Net, line: &Line) -> Result<PeerHello, String> {
        let mut begun = self.begins(line);
        site.looks_at(net);
        self.goes_on(site, line, &mut begun)
    }

    /// Says who it is.
    pub(super) fn begins(&self, line: &Line) -> Handshake {
        let begun = Handshake::dialer(self.config(), self.hello.clone(), [78; 32]);
        let (handshake, first) = begun.expect("something to prove with");
        line.state().coming.push_back(first);
        handshake
    }

    /// Reads the engine's answer, and proves itself by the third record.
    pub(super) fn goes_on(
        &self,
        site: &Site,
        line: &Line,
        begun: &mut Handshake,
    ) -> Result<PeerHello, String> {
        let second = line.state().said.pop_front().expect("an answer");
        match begun.handle(&second) {
            Ok(Step::SendAndDone(third, engine)) => {
                line.state().coming.push_back(*third);
                site.stirs(line);
                Ok(*engine)
            }
            Ok(other) => panic!("no answer: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }
}
