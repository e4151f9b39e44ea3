//! Two engines say hello to each other; then what was tried between them is shown. `cargo run -p sinew --example hello`.

use sinew::{Engine, Match};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let server = Engine::builder().domain("hello").build()?;
    let greeter = server.endpoint("greeter")?;
    let address = greeter.address();
    println!("the greeter is at {address}");

    let greeting = std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut name = [0; 64];
        let got = greeter.recv(Match::tag(1), &mut name)?;
        let answer = format!("hello, {}", String::from_utf8_lossy(&name[..got.len]));
        let peer = greeter.reply_to(got.source)?;
        peer.send(2, answer.as_bytes())?;
        Ok(())
    });

    let client = Engine::builder().domain("hello").build()?;
    let guest = client.endpoint("guest")?;
    let peer = guest.connect(address)?;
    peer.send(1, b"world")?;
    let mut answer = [0; 128];
    let got = guest.recv(2, &mut answer)?;
    println!("{:?} over {}", String::from_utf8_lossy(&answer[..got.len]), peer.path());
    print!("{}", peer.explain());
    greeting.join().expect("the greeter does not panic")
}
