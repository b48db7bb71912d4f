<?php
// What every script of ours begins with: as if the first domain had been asked for.
const WORDPRESS = '/usr/share/wordpress';
$_SERVER['HTTP_HOST'] = (require '/config/site.php')['domains'][0];
$_SERVER['REQUEST_METHOD'] = 'GET';
