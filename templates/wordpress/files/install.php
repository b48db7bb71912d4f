<?php
// Makes the site whole at each start: installs it once, brings its tables up to this WordPress, sets a new password.
require __DIR__ . '/cli.php';
$site = require __DIR__ . '/site.php';

// WordPress would end with a page and status 0; we say why, once a minute, and are tried again.
mysqli_report(MYSQLI_REPORT_OFF);
[$host, $port] = explode(':', $site['database']['host']);
$password = rtrim((string) file_get_contents($site['database']['password_file']), "\n");
if (!@mysqli_connect($host, $site['database']['user'], $password, $site['database']['name'], (int) $port)) {
    if ((int) $argv[1] % 60 === 0) {
        fwrite(STDERR, 'install: no database yet: ' . mysqli_connect_error() . "\n");
    }
    exit(1);
}

define('WP_INSTALLING', true);
require WORDPRESS . '/wp-load.php';
require WORDPRESS . '/wp-admin/includes/upgrade.php';
add_filter('pre_wp_mail', '__return_true');   // no letter about the new site
add_filter('pre_http_request', fn () => new WP_Error('install', 'no requests while installing'));

$secret = consolidate_secret('/run/secrets/admin_password');
$password = wp_slash($secret);   // as WordPress itself takes it from the form
if (!is_blog_installed() || !get_users(['number' => 1, 'fields' => 'ID'])) {   // never, or not to the end
    if ($site['language'] !== 'en_US') {
        load_default_textdomain($site['language']);
        $wp_locale = new WP_Locale();
    }
    wp_install($site['title'], $site['admin']['user'], $site['admin']['email'], true, '', $password, $site['language']);
    $wp_rewrite->set_permalink_structure('/%year%/%monthnum%/%postname%/');
    update_option('consolidate_password', wp_hash_password($secret));
    echo "install: WordPress is installed\n";
}
wp_upgrade();

// A password changed in the dashboard stays, until the secret changes.
$known = get_option('consolidate_password');
$admin = get_user_by('login', $site['admin']['user']);
if ($known && $admin && !wp_check_password($secret, $known)) {
    wp_set_password($password, $admin->ID);
    update_option('consolidate_password', wp_hash_password($secret));
    echo "install: {$admin->user_login} has a new password\n";
}
touch('/run/wordpress/installed');
