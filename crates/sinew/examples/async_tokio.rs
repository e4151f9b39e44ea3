//! Sinew on tokio: a server task and several clients on one thread, woken by the engine's descriptor.
//! `cargo run -p sinew --features tokio --example async_tokio`

use sinew::{Endpoint, Engine, Match, Peer, Progress};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn serve(endpoint: Endpoint, requests: usize) -> Result<()> {
    for _ in 0..requests {
        let got = endpoint.post_recv(Match::any_tag(), vec![0; 1024])?.await?;
        let back = endpoint.reply_to(got.info.source)?;
        back.post_send(got.info.tag, got.buf)?.await?;
    }
    Ok(())
}

async fn ask(endpoint: &Endpoint, peer: &Peer, tag: u64) -> Result<String> {
    let answer = endpoint.post_recv(tag, vec![0; 1024])?;
    peer.post_send(tag, format!("request {tag}").into_bytes())?.await?;
    Ok(String::from_utf8_lossy(answer.await?.buf.as_slice()).into_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let engine = Engine::builder().domain("tokio").progress(Progress::Event).build()?;
    let driver = sinew::on_tokio::drive(&engine)?;
    let (server, client) = (engine.endpoint("server")?, engine.endpoint("client")?);
    let peer = client.connect(server.address())?;
    let clients = async {
        let (one, two, three) =
            tokio::join!(ask(&client, &peer, 1), ask(&client, &peer, 2), ask(&client, &peer, 3));
        println!("{}, {}, {}", one?, two?, three?);
        Ok(())
    };
    let (served, asked) = tokio::join!(serve(server, 3), clients);
    driver.abort();
    served.and(asked)
}
