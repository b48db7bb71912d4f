<?php
// While the database is being replaced, requests wait for it instead of showing an error. WordPress tries to connect
// once (wpdb::db_connect) and runs no hook before that; a drop-in wp-content/db.php would take the place of a plugin's.

// Not there, just going or just coming: CR_CONNECTION_ERROR, CR_CONN_HOST_ERROR, CR_SERVER_GONE_ERROR, CR_SERVER_LOST,
// ER_SERVER_SHUTDOWN. Anything else, like a wrong password, is for WordPress to tell.
const CONSOLIDATE_GONE = [2002, 2003, 2006, 2013, 1053];
const CONSOLIDATE_PATIENCE = 30;   // seconds that one absence is waited for, not each request: so that workers get free
const CONSOLIDATE_AWAY = '/run/wordpress/database-away';   // since when; no worker remembers it for the others
const CONSOLIDATE_LONG = '/run/wordpress/database-long-away';

function consolidate_await_database(string $address, string $user, string $password): void
{
    mysqli_report(MYSQLI_REPORT_OFF);
    [$host, $port] = explode(':', $address);
    while (!consolidate_connects($host, (int) $port, $user, $password, $error)
        && in_array(mysqli_connect_errno(), CONSOLIDATE_GONE, true)) {
        $since = consolidate_away_since($error);
        if (microtime(true) - $since > CONSOLIDATE_PATIENCE) {
            if (@fopen(CONSOLIDATE_LONG, 'x')) {
                error_log(sprintf('the database has been away for %d s: requests fail now', CONSOLIDATE_PATIENCE));
            }
            return;
        }
        usleep(100_000);
    }
    if (!$error && PHP_SAPI !== 'cli') {
        register_shutdown_function('consolidate_ask_again');
    }
}

function consolidate_connects(string $host, int $port, string $user, string $password, ?string &$error): bool
{
    $link = mysqli_init();
    // A packet for an address that is just being given to the new container is lost, and sent again later and later.
    mysqli_options($link, MYSQLI_OPT_CONNECT_TIMEOUT, 1);
    if (!@mysqli_real_connect($link, $host, $user, $password, null, $port)) {
        $error = mysqli_connect_error();
        return false;
    }
    $link->close();
    $error = null;
    $since = @file_get_contents(CONSOLIDATE_AWAY);
    if ($since !== false && @unlink(CONSOLIDATE_AWAY)) {
        @unlink(CONSOLIDATE_LONG);
        error_log(sprintf('the database answers again, after %.1f s', microtime(true) - (float) $since));
    }
    return true;
}

// The first to miss it says so, and notes the time.
function consolidate_away_since(?string $error): float
{
    if ($file = @fopen(CONSOLIDATE_AWAY, 'x')) {
        error_log(sprintf('no database (%s): requests wait for it, up to %d s', $error, CONSOLIDATE_PATIENCE));
        fwrite($file, (string) microtime(true));
        fclose($file);
    }
    return (float) @file_get_contents(CONSOLIDATE_AWAY) ?: microtime(true);
}

// It can go between our connection and WordPress's own. Then nginx asks the same again, and that request waits.
function consolidate_ask_again(): void
{
    global $wpdb;
    if (!isset($wpdb) || ($wpdb->ready ?? true) || headers_sent()) {
        return;
    }
    $link = $wpdb->dbh ?? null;   // there where the connection was made, and lost before the database was chosen
    $error = mysqli_connect_errno() ?: ($link instanceof mysqli ? mysqli_errno($link) : 0);
    if (in_array($error, CONSOLIDATE_GONE, true) && in_array($_SERVER['REQUEST_METHOD'] ?? '', ['GET', 'HEAD'], true)) {
        while (ob_get_level()) {
            ob_end_clean();
        }
        header_remove();
        http_response_code(200);
        header("X-Accel-Redirect: {$_SERVER['REQUEST_URI']}");
    }
}
