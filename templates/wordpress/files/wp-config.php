<?php
// Debian's /usr/share/wordpress/wp-config.php includes this file, for every host name.

$site = require '/config/site.php';

function consolidate_secret(string $file): string
{
    $value = rtrim((string) file_get_contents($file), "\n");
    if ($value === '') {
        error_log("the secret $file is empty or can't be read");
        http_response_code(500);
        exit(1);
    }
    return $value;
}

// Read at each request: a new password is in force without a restart.
define('DB_HOST', $site['database']['host']);
define('DB_NAME', $site['database']['name']);
define('DB_USER', $site['database']['user']);
define('DB_PASSWORD', consolidate_secret($site['database']['password_file']));
define('DB_CHARSET', 'utf8mb4');
require '/config/database.php';
consolidate_await_database(DB_HOST, DB_USER, DB_PASSWORD);

$salt = consolidate_secret('/run/secrets/salt');
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $use) {
    define("{$use}_KEY", hash_hmac('sha256', "{$use}_KEY", $salt));
    define("{$use}_SALT", hash_hmac('sha256', "{$use}_SALT", $salt));
}

// The site's address is the one that was asked for, with its port, if it is one of ours; else the first domain's.
$usual = $site['port'] === ['http' => '80', 'https' => '443'][$site['scheme']];
$origin = "{$site['scheme']}://{$site['domains'][0]}" . ($usual ? '' : ":{$site['port']}");
$asked = PHP_SAPI === 'cli' ? '' : strtolower($_SERVER['HTTP_HOST'] ?? '');
if (preg_match('/^([a-z0-9.-]+)(:[0-9]{1,5})?$/', $asked, $part) && in_array($part[1], $site['domains'], true)) {
    $origin = (($_SERVER['HTTPS'] ?? '') === 'on' ? 'https' : 'http') . "://$asked";
} else {   // as if it had been asked for: WordPress would redirect to the port alone
    [$scheme, $_SERVER['HTTP_HOST']] = explode('://', $origin);
    $_SERVER['HTTPS'] = $scheme === 'https' ? 'on' : '';
}
define('WP_HOME', $origin);
define('WP_SITEURL', $origin);

define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
define('WPMU_PLUGIN_DIR', '/config/mu-plugins');
define('WP_TEMP_DIR', '/var/lib/wordpress/tmp');
define('FS_METHOD', 'direct');
define('DISALLOW_FILE_EDIT', true);
define('WP_AUTO_UPDATE_CORE', false);   // WordPress itself comes with the image
define('WP_ALLOW_MULTISITE', false);
define('DISABLE_WP_CRON', true);        // the start script runs it
