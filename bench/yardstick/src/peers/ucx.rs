//! UCX, through its own `ucx_perftest`: builds its command lines, runs server and client, reads the result.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::program::{CommandLine, Running};
use crate::sample::{Sample, stream_warm_up};

/// How to get it.
pub const REMEDY: &str = "ucx_perftest is absent: sinew-bench --setup, or apt-get install ucx-utils";
/// How long the server may take to listen.
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);

/// The transports that UCX is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// Shared memory alone.
    Posix,
    /// Shared memory with cross-memory attach: its default on one host.
    PosixCma,
    /// TCP on loopback.
    Tcp,
}

impl Transports {
    fn environment(self) -> Vec<(String, String)> {
        let pairs: &[(&str, &str)] = match self {
            Self::Posix => &[("UCX_TLS", "posix,self")],
            Self::PosixCma => &[("UCX_TLS", "posix,cma,self")],
            Self::Tcp => &[("UCX_TLS", "tcp,self"), ("UCX_NET_DEVICES", "lo")],
        };
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::PosixCma => "posix,cma",
            Self::Tcp => "tcp",
        }
    }

    /// About what one operation of `size_bytes` takes, nanoseconds: only to choose a number of iterations.
    fn guess_ns(self, size_bytes: usize) -> f64 {
        let (fixed, per_byte) = match self {
            Self::Posix => (60.0, 0.05),
            Self::PosixCma => (60.0, 0.11),
            Self::Tcp => (5000.0, 0.25),
        };
        fixed + per_byte * size_bytes as f64
    }
}

/// One test of `ucx_perftest`.
#[derive(Debug, Clone)]
pub struct Perftest {
    /// Its name, such as `tag_lat`.
    pub test: &'static str,
    /// What UCX may use.
    pub transports: Transports,
    /// Bytes of one message.
    pub size_bytes: usize,
}

/// Whether `ucx_perftest` can be started.
pub fn is_present() -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("ucx_perftest").is_file()))
}

impl Perftest {
    fn is_latency(&self) -> bool {
        self.test.ends_with("_lat")
    }

    /// The two command lines, server first.
    fn commands(&self, port: u16, seconds: f64, cpus: [usize; 2]) -> [CommandLine; 2] {
        let trips = if self.is_latency() { 2.0 } else { 1.0 };
        let guess_ns = trips * self.transports.guess_ns(self.size_bytes);
        let iterations = (seconds * 1e9 / guess_ns).clamp(20.0, 2e7) as u64;
        let warm_up_s =
            if self.is_latency() { seconds / 10.0 } else { stream_warm_up(seconds).as_secs_f64() };
        // Its own default is 10,000.
        let warm_up = (warm_up_s * 1e9 / guess_ns).clamp(10.0, 10_000.0) as u64;
        let common =
            format!("-t {} -s {} -n {iterations} -w {warm_up} -p {port}", self.test, self.size_bytes);
        let line = |front: &str, cpu: usize| CommandLine {
            environment: self.transports.environment(),
            program: "ucx_perftest".into(),
            arguments: format!("{front}{common} -c {cpu} -f").split(' ').map(String::from).collect(),
        };
        [line("", cpus[1]), line("localhost ", cpus[0])]
    }

    /// Runs the test once; returns the result and the two command lines that were used.
    pub fn run(&self, seconds: f64, cpus: [usize; 2]) -> Result<(Sample, String)> {
        let [server_line, client_line] = self.commands(free_port()?, seconds, cpus);
        let shown = format!("{server_line} & {client_line}");
        let deadline = Instant::now() + Duration::from_secs(30) + Duration::from_secs_f64(seconds * 20.0);
        let server = Running::start(&server_line)?;
        let port = client_line.arguments.iter().skip_while(|word| *word != "-p").nth(1);
        await_listener(port.and_then(|port| port.parse().ok()).context("no port")?)?;
        let text = Running::start(&client_line)?.finish(deadline)?;
        server.finish(deadline)?;
        Ok((self.parse(&text)?, shown))
    }

    /// Reads the one line of figures: iterations, median, average, overall (µs), bandwidth average, overall (MiB/s),
    /// rate average, overall (per second). The overall figure is over the whole run.
    fn parse(&self, text: &str) -> Result<Sample> {
        let figures = text
            .lines()
            .rev()
            .find_map(|line| {
                let figures: Option<Vec<f64>> =
                    line.split_whitespace().map(|word| word.parse().ok()).collect();
                figures.filter(|figures| figures.len() == 8)
            })
            .with_context(|| format!("no figures in what ucx_perftest printed: {text}"))?;
        let (p50_us, overall_us, rate) = (figures[1], figures[3], figures[7]);
        Ok(if self.is_latency() {
            Sample {
                latency_ns: Some(overall_us * 1000.0),
                latency_p50_ns: Some(p50_us * 1000.0),
                ..Sample::default()
            }
        } else {
            // Its MB are MiB of few digits; rate × size is exact.
            Sample {
                messages_per_s: Some(rate),
                bytes_per_s: Some(rate * self.size_bytes as f64),
                ..Sample::default()
            }
        })
    }
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until somebody listens on `port`: connecting to look would be taken for the client.
fn await_listener(port: u16) -> Result<()> {
    let deadline = Instant::now() + LISTEN_DEADLINE;
    loop {
        let sockets = std::fs::read_to_string("/proc/net/tcp").context("/proc/net/tcp")?;
        if sockets.lines().any(|line| listens(line, port)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("ucx_perftest does not listen on port {port}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a line of `/proc/net/tcp` is a socket in state LISTEN (0A) on `port`.
fn listens(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace();
    let local = words.nth(1).unwrap_or_default();
    let state = words.nth(1).unwrap_or_default();
    state == "0A" && local.ends_with(&format!(":{port:04X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
+--------------+--------------+------------------------------+---------------------+-----------------------+
|     Test     | # iterations | 50.0%ile | average | overall |  average |  overall |  average  |  overall  |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
                     1000000      0.100     0.297     0.298       25.67      25.67     3364279     3364280
";

    fn test(name: &'static str) -> Perftest {
        Perftest { test: name, transports: Transports::Posix, size_bytes: 8 }
    }

    #[test]
    fn the_overall_figures_of_ucx_perftest_are_read() {
        let latency = test("tag_lat").parse(OUTPUT).expect("figures");
        assert_eq!((latency.latency_ns, latency.latency_p50_ns), (Some(298.0), Some(100.0)));
        let bandwidth = test("tag_bw").parse(OUTPUT).expect("figures");
        assert_eq!(bandwidth.messages_per_s, Some(3_364_280.0));
        assert_eq!(bandwidth.bytes_per_s, Some(3_364_280.0 * 8.0));
        assert!(test("tag_bw").parse("[error] no such device").is_err());
    }

    #[test]
    fn the_command_lines_name_transports_cores_and_port() {
        let [server, client] = test("tag_lat").commands(14001, 0.1, [0, 1]);
        assert!(server.to_string().starts_with("UCX_TLS=posix,self ucx_perftest -t tag_lat -s 8 -n "));
        assert!(server.to_string().ends_with("-p 14001 -c 1 -f"));
        assert!(client.to_string().contains("ucx_perftest localhost -t tag_lat"));
        assert!(client.to_string().ends_with("-c 0 -f"));
    }

    #[test]
    fn a_listening_socket_is_told_from_others() {
        let line =
            "   1: 00000000:36B1 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9";
        assert!(listens(line, 14001));
        assert!(!listens(line, 14002));
        assert!(!listens(&line.replace(" 0A ", " 01 "), 14001));
    }
}
