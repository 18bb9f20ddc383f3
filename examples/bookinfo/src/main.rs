//! Bookinfo: small HTTP programs that know nothing of the mesh. See README.md.

mod admin;
mod client;
mod http;
mod journal;
mod roles;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};

use client::Client;
use journal::Journal;
use roles::Role;

/// One of the bookinfo services, as a plain HTTP/1.1 program.
#[derive(Parser, Debug)]
struct Options {
    /// Which service to be.
    #[arg(value_enum)]
    service: Service,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port to serve on.
    #[arg(long, default_value_t = 9080)]
    port: u16,
    /// Port for /count, /arrivals, /reset and /mode; none if absent.
    #[arg(long)]
    admin_port: Option<u16>,
    /// Version it says it is.
    #[arg(long = "version", default_value = "v1", value_name = "LABEL")]
    label: String,
    /// Port that the services it calls are called on.
    #[arg(long, default_value_t = 9080)]
    peer_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// Calls details and reviews.
    Productpage,
    /// Calls no one.
    Details,
    /// v1 calls no one; v2 and v3 call ratings.
    Reviews,
    /// Calls no one; can hang or be slow.
    Ratings,
    /// Calls no one.
    B,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> std::io::Result<()> {
    let journal = Arc::new(Journal::default());
    let client = Client::from_environment(
        &format!("{:?}/{}", options.service, options.label).to_lowercase(),
    );
    let role = Arc::new(Role::new(
        options.service,
        &options.label,
        client,
        options.peer_port,
    ));
    if let Some(port) = options.admin_port {
        let listener = TcpListener::bind(SocketAddr::new(options.address, port))?;
        let journal = Arc::clone(&journal);
        std::thread::spawn(move || {
            http::serve(&listener, move |request| admin::answer(&journal, request));
        });
    }
    let listener = TcpListener::bind(SocketAddr::new(options.address, options.port))?;
    println!("ready");
    http::serve(&listener, move |request| {
        let mode = journal.arrived(request);
        role.answer(mode, request)
    });
    Ok(())
}
