//! Many operations at a time on borrowed memory: a row is exchanged with a neighbour while nobody owns or copies buffers.

use sinew::{Endpoint, Engine, OpError, Peer};

const ROWS: usize = 4;
const LEN: usize = 100_000;

/// Sends all rows and receives all rows at once; returns when every one of them is through.
fn exchange(
    endpoint: &Endpoint,
    peer: &Peer,
    mine: &[[u8; LEN]],
    theirs: &mut [[u8; LEN]],
) -> Result<(), OpError> {
    endpoint.scope(|scope| {
        let receives = theirs
            .iter_mut()
            .zip(0..)
            .map(|(row, tag)| scope.recv(tag, row))
            .collect::<Result<Vec<_>, _>>()?;
        let sends = mine
            .iter()
            .zip(0..)
            .map(|(row, tag)| scope.send(peer, tag, row))
            .collect::<Result<Vec<_>, _>>()?;
        for receive in receives {
            receive.wait().0?;
        }
        sends.into_iter().try_for_each(|send| send.wait())
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (left, right) = (Engine::new("scope")?, Engine::new("scope")?);
    let (a, b) = (left.endpoint("")?, right.endpoint("")?);
    let to_a = a.address();
    let neighbour = std::thread::spawn(move || -> Result<(), String> {
        let peer = b.connect(to_a).map_err(|error| error.to_string())?;
        let mut theirs = vec![[0; LEN]; ROWS];
        peer.send(1000, b"ready").map_err(|error| error.to_string())?;
        exchange(&b, &peer, &vec![[2; LEN]; ROWS], &mut theirs).map_err(|error| error.to_string())?;
        assert!(theirs.iter().flatten().all(|&byte| byte == 1));
        right.close(std::time::Duration::from_secs(1)).map_err(|error| error.to_string())?;
        Ok(())
    });
    let mut hello = [0; 1024];
    let got = a.recv(1000, &mut hello)?;
    let peer = a.reply_to(got.source)?;
    let mut theirs = vec![[0; LEN]; ROWS];
    exchange(&a, &peer, &vec![[1; LEN]; ROWS], &mut theirs)?;
    assert!(theirs.iter().flatten().all(|&byte| byte == 2));
    println!("{ROWS} rows of {LEN} bytes in each direction over {}", peer.path());
    neighbour.join().map_err(|_| "the neighbour panicked")??;
    Ok(())
}
