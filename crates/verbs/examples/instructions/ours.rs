//! Our two sides: the same loops with `QueuePair`, and with a `Hub`.

use super::{BATCH, BYTES, Failure, Row};
use sinew_verbs::cq::{CompletionQueue, WorkCompletion};
use sinew_verbs::hub::{Hub, Member, Operation, Pipe, Prepared, Verb};
use sinew_verbs::memory::{Buffer, Gather, Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::qp::{QueuePair, Rc, SendRequest};
use sinew_verbs::{Library, ProtectionDomain};
use sinew_verbs_fake::null::NullDevice;

fn domain() -> Result<ProtectionDomain, Failure> {
    let library = Library::with(NullDevice::library());
    let devices = library.devices()?;
    Ok(devices.get(0).ok_or("no null device")?.open()?.protection_domain()?)
}

/// As many buffers as a batch, and memory to write to.
fn memory(pd: &ProtectionDomain) -> Result<(Vec<Buffer>, RemoteRegion), Failure> {
    let exposed = pd.expose(Memory::zeroed(BYTES)?, RemoteAccess::WRITE)?;
    let buffers = (0..BATCH).map(|_| pd.allocate(BYTES)).collect::<Result<_, _>>()?;
    Ok((buffers, exposed.remote()))
}

/// The caller keeps the memory.
pub(crate) fn raw(row: Row, requests: u64) -> Result<(), Failure> {
    let pd = domain()?;
    let (buffers, remote) = memory(&pd)?;
    let lists =
        buffers.iter().map(|buffer| Ok([buffer.gather(BYTES)?])).collect::<Result<Vec<_>, Failure>>()?;
    let cq = pd.context().completion_queue(4096).build()?;
    let mut qp: QueuePair<Rc> =
        pd.queue_pair(&cq).send_depth(32).receive_depth(1).extended(row.is_extended).build_raw()?;
    let lists: &[[Gather<'_>; 1]; BATCH] = lists[..].try_into()?;
    if row.is_batch {
        raw_batch(row, requests, &mut qp, &cq, lists, remote)
    } else {
        raw_single(row, requests, &mut qp, &cq, lists, remote)
    }
}

fn request<'l>(
    row: Row,
    number: u64,
    list: &'l [Gather<'l>; 1],
    remote: RemoteRegion,
) -> SendRequest<'l, Rc> {
    let request =
        if row.is_write { SendRequest::write(number, list, remote) } else { SendRequest::send(number, list) };
    if row.is_signaled(number) { request.signaled() } else { request }
}

#[inline(never)]
fn raw_single(
    row: Row,
    requests: u64,
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    lists: &[[Gather<'_>; 1]; BATCH],
    remote: RemoteRegion,
) -> Result<(), Failure> {
    let mut places = [WorkCompletion::EMPTY; BATCH];
    for number in 0..requests {
        let request = request(row, number, &lists[number as usize % BATCH], remote);
        // SAFETY: the memory lives longer than the queue pair, and what is out is polled below.
        unsafe { qp.post_one(request) }?;
        if row.is_signaled(number) {
            poll_until(cq, &mut places, 1)?;
        }
    }
    Ok(())
}

#[inline(never)]
fn raw_batch(
    row: Row,
    requests: u64,
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    lists: &[[Gather<'_>; 1]; BATCH],
    remote: RemoteRegion,
) -> Result<(), Failure> {
    let mut places = [WorkCompletion::EMPTY; BATCH];
    for first in (0..requests).step_by(BATCH) {
        if row.is_extended {
            let batch = (first..).zip(lists).map(|(number, list)| request(row, number, list, remote));
            // SAFETY: as above.
            unsafe { qp.post_each(batch) }?;
        } else {
            let mut batch: [SendRequest<'_, Rc>; BATCH] =
                std::array::from_fn(|place| request(row, first + place as u64, &lists[place], remote));
            // SAFETY: as above.
            unsafe { qp.post(&mut batch) }?;
        }
        poll_until(cq, &mut places, if row.signal_all { BATCH } else { 1 })?;
    }
    Ok(())
}

#[inline(always)]
fn poll_until(
    cq: &CompletionQueue,
    places: &mut [WorkCompletion; BATCH],
    mut count: usize,
) -> Result<(), Failure> {
    while count > 0 {
        let got = cq.poll_into(&mut places[..count])?;
        for completion in &places[..got] {
            completion.ok()?;
        }
        count -= got;
    }
    Ok(())
}

/// A pipe keeps the memory.
pub(crate) fn pipe(row: Row, requests: u64) -> Result<(), Failure> {
    let pd = domain()?;
    let (buffers, remote) = memory(&pd)?;
    let mut pipe = Pipe::<Rc>::new(&pd, 32, 1, |qp| Ok(qp.extended(row.is_extended)))?;
    let own = pipe.endpoint()?;
    pipe.connect(&own)?;
    if row.is_batch {
        pipe_batch(row, requests, &mut pipe, buffers, remote)
    } else {
        pipe_single(row, requests, &mut pipe, buffers, remote)
    }
}

#[inline(never)]
fn pipe_single(
    row: Row,
    requests: u64,
    pipe: &mut Pipe<Rc>,
    mut buffers: Vec<Buffer>,
    remote: RemoteRegion,
) -> Result<(), Failure> {
    let verb = if row.is_write { Verb::write(remote) } else { Verb::send() };
    for number in 0..requests {
        let buffer = buffers.pop().ok_or("a buffer did not come back")?;
        let verb = if row.is_signaled(number) { verb } else { verb.unsignaled() };
        pipe.post(buffer, verb).map_err(|rejected| rejected.error)?;
        if row.is_signaled(number) {
            drain(pipe, &mut buffers)?;
        }
    }
    Ok(())
}

#[inline(never)]
fn pipe_batch(
    row: Row,
    requests: u64,
    pipe: &mut Pipe<Rc>,
    mut buffers: Vec<Buffer>,
    remote: RemoteRegion,
) -> Result<(), Failure> {
    let verb = if row.is_write { Verb::write(remote) } else { Verb::send() };
    let others = if row.signal_all { verb } else { verb.unsignaled() };
    for _ in (0..requests).step_by(BATCH) {
        pipe.post_all(&mut buffers, |place| if place == BATCH - 1 { verb } else { others })?;
        drain(pipe, &mut buffers)?;
    }
    Ok(())
}

/// Until every buffer is here again.
#[inline(always)]
fn drain(pipe: &mut Pipe<Rc>, buffers: &mut Vec<Buffer>) -> Result<(), Failure> {
    while buffers.len() < BATCH {
        let ended = pipe.poll()?;
        ended.result()?;
        ended.append_to(buffers);
    }
    Ok(())
}

/// The hub keeps the memory. Operations are made for each post, or prepared before.
pub(crate) fn hub(row: Row, requests: u64, is_prepared: bool) -> Result<(), Failure> {
    let pd = domain()?;
    let (buffers, remote) = memory(&pd)?;
    let mut hub = Hub::<Rc>::new(pd.context(), 64)?;
    let prepared = hub.queue_pair(&pd).send_depth(32).receive_depth(1).extended(row.is_extended).build()?;
    let member = hub.add(prepared)?;
    let own = hub.endpoint(member)?;
    hub.connect(member, &own)?;
    if is_prepared {
        return hub_prepared(row, requests, &mut hub, member, buffers, remote);
    }
    if row.is_batch {
        hub_batch(row, requests, &mut hub, member, buffers, remote)
    } else {
        hub_single(row, requests, &mut hub, member, buffers, remote)
    }
}

fn operation(row: Row, number: u64, buffer: Buffer, remote: RemoteRegion) -> Operation<Rc> {
    let operation = if row.is_write { Operation::write(buffer, remote) } else { Operation::send(buffer) };
    if row.is_signaled(number) { operation } else { operation.unsignaled() }
}

#[inline(never)]
fn hub_single(
    row: Row,
    requests: u64,
    hub: &mut Hub<Rc>,
    member: Member,
    mut buffers: Vec<Buffer>,
    remote: RemoteRegion,
) -> Result<(), Failure> {
    for number in 0..requests {
        let buffer = buffers.pop().ok_or("a buffer did not come back")?;
        hub.post(member, operation(row, number, buffer, remote)).map_err(|rejected| rejected.error)?;
        if row.is_signaled(number) {
            take_back(hub, &mut buffers)?;
        }
    }
    Ok(())
}

#[inline(never)]
fn hub_batch(
    row: Row,
    requests: u64,
    hub: &mut Hub<Rc>,
    member: Member,
    mut buffers: Vec<Buffer>,
    remote: RemoteRegion,
) -> Result<(), Failure> {
    for first in (0..requests).step_by(BATCH) {
        let mut number = first;
        let mut batch = buffers.drain(..).map(|buffer| {
            number += 1;
            operation(row, number - 1, buffer, remote)
        });
        hub.post_batch(member, &mut batch).map_err(|rejected| rejected.error)?;
        drop(batch);
        take_back(hub, &mut buffers)?;
    }
    Ok(())
}

/// As many prepared requests as a batch: of one operation each, or one of all.
fn hub_prepared(
    row: Row,
    requests: u64,
    hub: &mut Hub<Rc>,
    member: Member,
    buffers: Vec<Buffer>,
    remote: RemoteRegion,
) -> Result<(), Failure> {
    let pd = hub.queue_pair_of(member)?.protection_domain().clone();
    let together = if row.is_batch { BATCH } else { 1 };
    let mut made = (0..).zip(buffers).map(|(number, buffer)| operation(row, number, buffer, remote));
    let mut all = Vec::new();
    while all.len() * together < BATCH {
        let some = made.by_ref().take(together).collect();
        all.push(Prepared::new(&pd, some).map_err(|rejected| rejected.error)?);
    }
    drop(made);
    let mut all: Vec<_> = all.into_iter().map(Some).collect();
    for first in (0..requests).step_by(BATCH) {
        post_prepared(row, first, hub, member, &mut all)?;
    }
    Ok(())
}

/// A batch of requests, from this number on.
#[inline(never)]
fn post_prepared(
    row: Row,
    first: u64,
    hub: &mut Hub<Rc>,
    member: Member,
    all: &mut [Option<Prepared<Rc>>],
) -> Result<(), Failure> {
    let mut back = 0;
    for place in 0..all.len() {
        let one = all[place].take().ok_or("requests did not come back")?;
        hub.post_prepared(member, one).map_err(|rejected| rejected.error)?;
        if !row.is_batch && !row.is_signaled(first + place as u64) {
            continue;
        }
        while back <= place {
            if let Some(ended) = hub.poll()? {
                ended.result()?;
                all[back] = Some(ended.into_prepared().ok_or("other memory came back than was posted")?);
                back += 1;
            }
        }
    }
    Ok(())
}

/// Until every buffer is here again.
#[inline(always)]
fn take_back(hub: &mut Hub<Rc>, buffers: &mut Vec<Buffer>) -> Result<(), Failure> {
    while buffers.len() < BATCH {
        if let Some(ended) = hub.poll()? {
            ended.result()?;
            buffers.push(ended.into_buffer().ok_or("other memory came back than was posted")?);
        }
    }
    Ok(())
}
