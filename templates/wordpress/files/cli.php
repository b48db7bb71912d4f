<?php
// What every script of ours begins with: WordPress, as if the first domain had been asked for.
$_SERVER['HTTP_HOST'] = (require '/config/site.php')['domains'][0];
$_SERVER['REQUEST_METHOD'] = 'GET';
define('ABSPATH', '/usr/share/wordpress/');
