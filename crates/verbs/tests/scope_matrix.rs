//! What `scope` and `manual_scope` answer, cell by cell of the table at the head of `sinew_verbs::channel`.

mod common;
mod fake;

use common::channels;
use fake::{Channels, Fake, range};
use sinew_verbs::channel::{Channel, Scope, ScopeError, Work};
use sinew_verbs::memory::{Buffer, Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::work::Status;
use sinew_verbs::{Error, ProtectionDomain};
use sinew_verbs_fake::{Call, Hold, Refusal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A channel whose writes succeed in one region and fail in another, and its peer, which must stay.
struct Case {
    channel: Channel,
    _peer: Channel,
    piece: Buffer,
    open: RemoteRegion,
    closed: RemoteRegion,
    _pd: ProtectionDomain,
    _memory: [sinew_verbs::memory::ExposedRegion; 2],
}

impl Case {
    fn new() -> Option<Self> {
        let (pd, channel, peer) = channels(module_path!())?;
        let expose = |access| pd.expose(Memory::zeroed(8).unwrap(), access).unwrap();
        let memory = [expose(RemoteAccess::all()), expose(RemoteAccess::READ)];
        let [open, closed] = memory.each_ref().map(sinew_verbs::memory::ExposedRegion::remote);
        Some(Self {
            channel,
            _peer: peer,
            piece: pd.allocate(8).unwrap(),
            open,
            closed,
            _pd: pd,
            _memory: memory,
        })
    }
}

/// How the closure leaves its operation.
#[derive(Clone, Copy)]
enum Leave {
    Taken,
    Dropped,
    Forgotten,
}

/// Writes to a region and leaves the operation in that way.
fn write<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    piece: &'env Buffer,
    remote: RemoteRegion,
    leave: Leave,
) -> Result<(), Error> {
    let pending = scope.post(Work::write(piece.gather(8)?, remote))?;
    match leave {
        Leave::Taken => drop(pending.wait()),
        Leave::Dropped => drop(pending),
        Leave::Forgotten => std::mem::forget(pending),
    }
    Ok(())
}

/// What a closure is to answer.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Ok,
    Err,
}

/// Runs one cell: an operation that succeeds or fails, left in a way, and the closure's answer.
fn cell(manual: bool, fails: bool, leave: Leave, answer: Answer) -> Option<Result<u8, ScopeError<Error>>> {
    let mut case = Case::new()?;
    let remote = if fails { case.closed } else { case.open };
    let piece = &case.piece;
    let said = || Error::Peer { cause: "the closure said so".to_owned() };
    Some(if manual {
        case.channel.manual_scope(|scope| {
            write(scope, piece, remote, leave)?;
            if answer == Answer::Ok { Ok(7) } else { Err(said()) }
        })
    } else {
        case.channel.scope(|scope| {
            write(scope, piece, remote, leave)?;
            if answer == Answer::Ok { Ok(7) } else { Err(said()) }
        })
    })
}

fn is_remote_access(failures: &[Error]) -> bool {
    matches!(failures, [Error::Work(error)] if error.status == Status::REMOTE_ACCESS)
}

#[test]
fn every_result_was_taken() {
    for manual in [false, true] {
        let Some(answer) = cell(manual, false, Leave::Taken, Answer::Ok) else { return };
        assert_eq!(answer.unwrap(), 7);
    }
}

#[test]
fn a_failed_result_was_taken_and_ignored() {
    for manual in [false, true] {
        let Some(answer) = cell(manual, true, Leave::Taken, Answer::Ok) else { return };
        assert_eq!(answer.unwrap(), 7);
    }
}

#[test]
fn results_that_were_not_taken_succeed() {
    for leave in [Leave::Dropped, Leave::Forgotten] {
        let Some(answer) = cell(false, false, leave, Answer::Ok) else { return };
        assert_eq!(answer.unwrap(), 7);
        let broken_word =
            catch_unwind(AssertUnwindSafe(|| cell(true, false, leave, Answer::Ok))).unwrap_err();
        let text = broken_word.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(text.contains("were not waited for"), "{text:?}");
    }
}

#[test]
fn a_result_that_was_not_taken_failed() {
    for (manual, leave) in
        [(false, Leave::Dropped), (true, Leave::Dropped), (false, Leave::Forgotten), (true, Leave::Forgotten)]
    {
        let Some(answer) = cell(manual, true, leave, Answer::Ok) else { return };
        let Err(ScopeError::Failed(failures)) = answer else { panic!("{answer:?}") };
        assert!(is_remote_access(&failures), "{failures:?}");
    }
}

#[test]
fn the_closure_failed() {
    for manual in [false, true] {
        for (fails, leave) in
            [(false, Leave::Taken), (false, Leave::Dropped), (true, Leave::Dropped), (true, Leave::Forgotten)]
        {
            let Some(answer) = cell(manual, fails, leave, Answer::Err) else { return };
            let Err(ScopeError::Closure { error, failures }) = answer else { panic!("{answer:?}") };
            assert!(error.to_string().contains("said so"));
            assert_eq!(is_remote_access(&failures), fails, "{failures:?}");
        }
    }
}

#[test]
fn the_closure_panicked() {
    for manual in [false, true] {
        let Some(mut case) = Case::new() else { return };
        let (piece, open, channel) = (&case.piece, case.open, &mut case.channel);
        let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<(), ScopeError<Error>> {
            if manual {
                channel.manual_scope(|scope| {
                    write(scope, piece, open, Leave::Dropped)?;
                    panic!("on purpose")
                })
            } else {
                channel.scope(|scope| {
                    write(scope, piece, open, Leave::Forgotten)?;
                    panic!("on purpose")
                })
            }
        }));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert!(case.channel.broken().is_none());
    }
}

#[test]
fn what_is_out_does_not_end_by_the_deadline() {
    for manual in [false, true] {
        for answer in [Answer::Ok, Answer::Err] {
            let Some(mut case) = Case::new() else { return };
            case.channel.set_deadline(Some(Duration::from_millis(30)));
            let run = |channel: &mut Channel| {
                if manual {
                    channel.manual_scope(|scope| {
                        drop(scope.post(Work::receive_word())?);
                        if answer == Answer::Ok {
                            Ok(())
                        } else {
                            Err(Error::Peer { cause: "said so".to_owned() })
                        }
                    })
                } else {
                    channel.scope(|scope| {
                        drop(scope.post(Work::receive_word())?);
                        if answer == Answer::Ok {
                            Ok(())
                        } else {
                            Err(Error::Peer { cause: "said so".to_owned() })
                        }
                    })
                }
            };
            let failures = match run(&mut case.channel) {
                Err(ScopeError::Failed(failures)) if answer == Answer::Ok => failures,
                Err(ScopeError::Closure { failures, .. }) if answer == Answer::Err => failures,
                other => panic!("{other:?}"),
            };
            assert!(matches!(failures[0], Error::TimedOut { .. }), "{failures:?}");
            assert!(case.channel.broken().is_some());
        }
    }
}

#[test]
fn the_device_fails_to_poll() {
    for (manual, leave) in
        [(false, Leave::Dropped), (false, Leave::Forgotten), (true, Leave::Taken), (true, Leave::Dropped)]
    {
        for answer in [Answer::Ok, Answer::Err] {
            let fake = Fake::new();
            let Channels { mut a, b, a_qp, .. } = Channels::new(&fake, Duration::from_millis(30));
            fake.control.hold(a_qp, Hold::COMPLETIONS);
            let mut place = fake.pd.allocate(8).unwrap();
            let bytes = range(&place);
            let scatter = place.scatter().unwrap();
            let control = &fake.control;
            let body = |scope: &Scope<'_, '_>, pending: sinew_verbs::channel::Pending<'_, '_>| {
                control.refuse(Call::PollCq, Refusal::always(libc::EIO));
                match leave {
                    Leave::Taken => assert!(matches!(pending.wait(), Err(Error::Call { .. })), "{scope:?}"),
                    Leave::Dropped => drop(pending),
                    Leave::Forgotten => std::mem::forget(pending),
                }
                if answer == Answer::Ok { Ok(7) } else { Err(Error::Peer { cause: "said so".to_owned() }) }
            };
            let ended = if manual {
                a.manual_scope(|scope| body(scope, scope.post(Work::receive(scatter))?))
            } else {
                a.scope(|scope| body(scope, scope.post(Work::receive(scatter))?))
            };
            control.freed(bytes);
            assert_eq!(control.touches_after_free(), []);
            let failures = match ended {
                // The failure was told to who waited.
                Ok(7) if answer == Answer::Ok && matches!(leave, Leave::Taken) => Vec::new(),
                Err(ScopeError::Failed(failures)) if answer == Answer::Ok => failures,
                Err(ScopeError::Closure { failures, .. }) if answer == Answer::Err => failures,
                other => panic!("{other:?}"),
            };
            let told = failures.iter().any(|failure| matches!(failure, Error::Call { .. }));
            assert_eq!(told, !matches!(leave, Leave::Taken), "{failures:?}");
            assert!(a.broken().is_some());
            fake.control.refuse_nothing();
            drop((a, b, place));
            fake.finish();
        }
    }
}
