//! Pictures as PNG. A browser draws them: nothing else sets letters as well, and whoever wants
//! pictures for a README has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Picture;

/// The program, as distributions call it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// Pixels of the picture for each pixel of its page: 1,200 for the 1,000 of a page.
const SCALE: &str = "1.2";

/// A browser that has not drawn a picture by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no PNG.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChromiumError {
    /// The machine's: no browser on PATH. Nothing was written.
    #[error(
        "no Chromium on PATH to draw PNGs with: install it (Debian: apt-get install chromium), or \
         leave --png away and take the HTML"
    )]
    Missing,
    /// The browser's: it ended without a picture, or did not end. Earlier pictures are there.
    #[error("{} drew no {}: {reason}", program.display(), output.display())]
    Failed {
        /// The browser.
        program: PathBuf,
        /// The picture that is missing.
        output: PathBuf,
        /// The end of what it said.
        reason: String,
    },
    /// The file system's. Earlier pictures are there.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Draws `pictures` as PNG files in `directory` and gives their paths, in the same order.
///
/// # Errors
///
/// [`ChromiumError`], of the first that could not be drawn; those before it are there.
pub fn paint(pictures: &[Picture], directory: &Path) -> Result<Vec<PathBuf>, ChromiumError> {
    let program = found().ok_or(ChromiumError::Missing)?;
    // Beside the pictures, since a browser in a sandbox of its own may not see /tmp.
    let scratch = directory.join(format!(".drawing-{}", std::process::id()));
    let made = fs::create_dir_all(&scratch);
    made.map_err(|error| ChromiumError::Io { path: scratch.clone(), error })?;
    let painted = pictures
        .iter()
        .map(|picture| one(&program, picture, directory, &scratch))
        .collect::<Result<Vec<_>, _>>();
    // A browser's profile that stays behind harms nobody.
    let _ = fs::remove_dir_all(&scratch);
    painted
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = NAMES.iter().flat_map(|name| directories.iter().map(move |at| at.join(name)));
    candidates.into_iter().find(|program| program.is_file())
}

fn one(
    program: &Path,
    picture: &Picture,
    directory: &Path,
    scratch: &Path,
) -> Result<PathBuf, ChromiumError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |error| ChromiumError::Io { path, error }
    };
    let page = scratch.join("page.html");
    fs::write(&page, &picture.html).map_err(io(&page))?;
    let page = page.canonicalize().map_err(io(&page))?;
    let output = directory.join(format!("{}.png", picture.name));
    // The picture of an earlier report must not pass for this one.
    let _ = fs::remove_file(&output);
    let said = scratch.join("said");
    let log = fs::File::create(&said).map_err(io(&said))?;
    let mut child = Command::new(program)
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", scratch.join("profile").display()))
        .arg(format!("--force-device-scale-factor={SCALE}"))
        .arg(format!("--window-size={},{}", picture.width, picture.height))
        .arg(format!("--screenshot={}", output.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(io(program))?;
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait().map_err(io(program))? {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            // It may have ended in between; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    if output.is_file() {
        return Ok(output);
    }
    let said = fs::read(&said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let reason = match ended {
        Some(status) => format!("{status}, {last}"),
        None => format!("no end after {} s, {last}", PATIENCE.as_secs()),
    };
    Err(ChromiumError::Failed { program: program.to_owned(), output, reason })
}

/// Without a sandbox, which root and most containers cannot have: the page is our own and has no
/// script. Without the browser's own errands in the network.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];
