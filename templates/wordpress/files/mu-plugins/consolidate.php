<?php
/*
Plugin Name: consolidate
Description: Mail through the mail server of this stack; WordPress itself is updated with the server's image.
*/

// WordPress itself is read-only here: offer no update of it.
add_filter('map_meta_cap', fn ($caps, $cap) => $cap === 'update_core' ? ['do_not_allow'] : $caps, 10, 2);
add_action('admin_init', fn () => remove_action('admin_notices', 'update_nag', 3));

$site = require '/config/site.php';

add_filter(
    'wp_mail_from',   // WordPress would make the sender up from the address it was asked by
    fn ($from) => str_starts_with($from, 'wordpress@') ? $site['mail_from'] : $from
);

if ($site['relay']) {
    add_action('phpmailer_init', function ($mailer) use ($site) {
        $mailer->isSMTP();
        $mailer->Host = $site['relay']['host'];
        $mailer->Port = $site['relay']['port'];
        $mailer->SMTPAuth = true;
        $mailer->Username = $site['relay']['user'];
        $mailer->Password = consolidate_secret($site['relay']['password_file']);
        $mailer->SMTPSecure = 'tls';
        // The way there is a private network with nobody else on it: encrypt, without a name to ask for.
        $mailer->SMTPOptions = ['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]];
        $mailer->Hostname = $site['domains'][0];   // in the greeting and the Message-ID
        $mailer->Timeout = 15;
        $mailer->Sender = $site['mail_from'];   // the envelope's, whatever a form puts into From
    });
}
