//! A network of four ranks on a real device: they find each other, send, write, wait for each other, and outlive a lost connection.

mod common;

use sinew_verbs::channel::{Places, Work};
use sinew_verbs::memory::{Memory, RemoteAccess};
use sinew_verbs::multi_channel::PeerRegion;
use sinew_verbs::network::barrier::{BarrierAlgorithm, BarrierError};
use sinew_verbs::network::config::{NetworkConfig, NodeConfig};
use sinew_verbs::network::exchange::{Exchange, ExchangeOptions, TcpExchange};
use sinew_verbs::network::{Introduction, Node};
use sinew_verbs::{Error, ProtectionDomain};
use std::net::TcpListener;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const RANKS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a rank in each of four threads.
fn network(algorithm: BarrierAlgorithm, rank: impl Fn(&ProtectionDomain, Node) + Sync) {
    let Some(context) = common::device(module_path!()) else { return };
    let pd = context.protection_domain().unwrap();
    let listeners: Vec<_> = (0..RANKS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let config = listeners.iter().zip(0..).fold(NetworkConfig::builder(), |config, (listener, rank)| {
        config.add_node(NodeConfig::new(rank, "127.0.0.1", listener.local_addr().unwrap().port()))
    });
    let config = config.build().unwrap();
    std::thread::scope(|threads| {
        for (listener, own) in listeners.into_iter().zip(0..) {
            let (pd, config, rank) = (&pd, &config, &rank);
            threads.spawn(move || {
                let options = ExchangeOptions::open("four").listener(listener);
                let mut exchange = TcpExchange::new(own, config, options).unwrap();
                let node = Node::builder(pd, own, RANKS)
                    .barrier_algorithm(algorithm)
                    .remote_access(RemoteAccess::all())
                    .deadline(Some(PATIENCE))
                    .build()
                    .unwrap();
                rank(pd, node.connect(&mut exchange).unwrap());
            });
        }
    });
}

#[test]
fn no_rank_leaves_a_barrier_before_all_have_entered_whatever_the_algorithm() {
    for algorithm in BarrierAlgorithm::ALL {
        let entered = AtomicU32::new(0);
        network(algorithm, |_, mut node| {
            for round in 1..=20 {
                entered.fetch_add(1, Ordering::Relaxed);
                assert_eq!(node.barrier_all(PATIENCE).unwrap(), u64::from(2 * round - 1));
                // Nobody enters the next round before the second barrier.
                assert_eq!(entered.load(Ordering::Relaxed), round * RANKS, "{algorithm:?}");
                assert_eq!(node.barrier(&[0, 1, 2, 3], PATIENCE).unwrap(), u64::from(2 * round));
            }
        });
    }
}

#[test]
fn every_rank_sends_to_every_other_and_writes_what_a_barrier_makes_seen() {
    network(BarrierAlgorithm::Dissemination, |pd, mut node| {
        let me = node.rank();
        let others = || (0..RANKS).filter(move |rank| *rank != me);
        let window = pd.expose(Memory::zeroed(8 * RANKS as usize).unwrap(), RemoteAccess::all()).unwrap();
        // Everybody tells everybody where to write.
        let told = pd.adopt(window.remote().to_bytes().to_vec()).unwrap();
        let mut heard: Vec<_> = others().map(|rank| (rank, pd.allocate(20).unwrap())).collect();
        let exchanged = node.scope(|scope| {
            let mut pending = Vec::new();
            for (rank, place) in &mut heard {
                pending.push(scope.post_to(*rank, Work::receive(place.scatter()?))?);
            }
            for rank in others() {
                pending.push(scope.post_to(rank, Work::send(told.gather(20)?))?);
            }
            pending.into_iter().try_for_each(|pending| pending.wait().map(drop))
        });
        exchanged.unwrap();
        let mark = pd.adopt((u64::from(me) + 1).to_ne_bytes().to_vec()).unwrap();
        let regions = heard.iter().map(|(peer, place)| {
            let region =
                sinew_verbs::memory::RemoteRegion::from_bytes(place[..].try_into().unwrap()).unwrap();
            PeerRegion { peer: *peer, region }.slice(u64::from(me) * 8, 8).unwrap()
        });
        let regions: Vec<_> = regions.collect();
        assert!(
            node.scatter_write(regions.iter().map(|region| (*region, mark.gather(8).unwrap().into())))
                .iter()
                .all(Result::is_ok)
        );
        node.barrier_all(PATIENCE).unwrap();
        for rank in others() {
            assert_eq!(window.load(rank as usize * 8, Ordering::Acquire).unwrap(), u64::from(rank) + 1);
        }
        // Nobody goes before all have looked.
        node.barrier_all(PATIENCE).unwrap();
    });
}

#[test]
fn a_barrier_is_entered_inside_a_scope_while_operations_are_out() {
    network(BarrierAlgorithm::Centralized, |pd, mut node| {
        let me = node.rank();
        let (next, before) = ((me + 1) % RANKS, (me + RANKS - 1) % RANKS);
        let message = pd.adopt(vec![me as u8; 8]).unwrap();
        let mut place = pd.allocate(8).unwrap();
        let scatter = place.scatter().unwrap();
        let heard = node.scope(|scope| {
            let receive = scope.post_to(before, Work::receive(scatter))?;
            // Nobody sends before all receives are out; the barrier's own count goes on over scopes.
            assert_eq!(scope.barrier_all(PATIENCE).unwrap(), 1);
            scope.post_to(next, Work::send(message.gather(8)?))?.wait()?;
            let heard = receive.wait()?.places.into_bytes().to_vec();
            assert_eq!(scope.barrier(&[0, 1, 2, 3], PATIENCE).unwrap(), 2);
            assert!(scope.barrier(&[3, 1], PATIENCE).is_err(), "no group");
            Ok::<_, Error>(heard)
        });
        assert_eq!(heard.unwrap(), [before as u8; 8]);
        let kept = node.manual_scope(|scope| {
            let empty = scope.post_to(before, Work::receive_word())?;
            scope.post_to(next, Work::send(&[][..]))?.wait()?;
            empty.wait().map(drop)
        });
        kept.unwrap();
        assert_eq!(node.barrier_all(PATIENCE).unwrap(), 3);
    });
}

#[test]
fn a_barrier_of_some_that_one_does_not_enter_ends_at_its_time_and_goes_on_later() {
    let late = Barrier::new(2);
    network(BarrierAlgorithm::BinaryTree, |_, mut node| match node.rank() {
        1 => {
            let error = node.barrier(&[1, 3], Duration::from_millis(50)).unwrap_err();
            assert!(matches!(error, BarrierError::TimedOut { rank: 3, .. }), "{error}");
            late.wait();
            assert_eq!(node.barrier(&[1, 3], PATIENCE).unwrap(), 1);
            node.barrier_all(PATIENCE).unwrap();
        }
        3 => {
            late.wait();
            assert_eq!(node.barrier(&[1, 3], PATIENCE).unwrap(), 1);
            node.barrier_all(PATIENCE).unwrap();
        }
        _ => {
            assert!(matches!(node.barrier(&[1, 3], PATIENCE), Err(BarrierError::Group(_))));
            node.barrier_all(PATIENCE).unwrap();
        }
    });
}

#[test]
fn traffic_that_is_out_does_not_disturb_a_barrier() {
    network(BarrierAlgorithm::Centralized, |pd, mut node| {
        let piece = pd.allocate(8).unwrap();
        let me = node.rank();
        let sent = node.scope(|scope| {
            for rank in (0..RANKS).filter(|rank| *rank != me) {
                for _ in 0..32 {
                    drop(scope.post_to(rank, Work::receive_word())?);
                }
            }
            for rank in (0..RANKS).filter(|rank| *rank != me) {
                for _ in 0..32 {
                    drop(scope.post_to(rank, Work::send(piece.gather(0)?))?);
                }
            }
            Ok::<_, Error>(())
        });
        sent.unwrap();
        node.barrier_all(PATIENCE).unwrap();
    });
}

#[test]
fn a_connection_that_was_cut_is_made_anew_and_the_barrier_goes_on() {
    let swap: [std::sync::Mutex<Option<Introduction>>; 2] = Default::default();
    let (cut, ready) = (Barrier::new(2), Barrier::new(2));
    network(BarrierAlgorithm::Centralized, |pd, mut node| {
        let me = node.rank();
        if me > 1 {
            node.barrier_all(PATIENCE).unwrap();
            node.barrier_all(PATIENCE).unwrap();
            return;
        }
        let other = 1 - me;
        node.barrier_all(PATIENCE).unwrap();
        if me == 0 {
            // A receive that nobody answers: the connection is cut short.
            node.set_deadline(Some(Duration::from_millis(20)));
            let mut place = pd.allocate(8).unwrap();
            assert!(node.receive(other, Places::from(place.scatter().unwrap())).is_err());
            assert!(node.broken(other).is_some());
            let error = node.barrier(&[0, 1], Duration::from_millis(50)).unwrap_err();
            assert!(
                matches!(error, BarrierError::Cells { rank: 1, .. } | BarrierError::TimedOut { .. }),
                "{error}"
            );
        }
        cut.wait();
        let endpoint = node.reset(other).unwrap();
        *swap[me as usize].lock().unwrap() = Some(node.introduction(endpoint));
        ready.wait();
        let introduction = swap[other as usize].lock().unwrap().unwrap();
        node.reconnect(other, &introduction).unwrap();
        cut.wait();
        if me == 1 {
            node.barrier(&[0, 1], PATIENCE).unwrap();
        } else {
            assert_eq!(node.barrier(&[0, 1], PATIENCE).unwrap(), 1, "the barrier that was entered before");
        }
        node.barrier_all(PATIENCE).unwrap();
    });
}

#[test]
fn an_exchange_of_another_rank_is_refused() {
    let Some(context) = common::device(module_path!()) else { return };
    struct Other;
    impl Exchange for Other {
        fn rank(&self) -> u32 {
            1
        }
        fn world_size(&self) -> u32 {
            2
        }
        fn exchange_bytes(
            &mut self,
            _: Vec<Vec<u8>>,
        ) -> Result<Vec<Vec<u8>>, sinew_verbs::network::exchange::ExchangeError> {
            panic!("it is not asked")
        }
    }
    let node = Node::builder(&context.protection_domain().unwrap(), 0, 2).build().unwrap();
    let error = node.connect(&mut Other).unwrap_err();
    assert!(error.to_string().contains("rank 0 of 2"), "{error}");
}
