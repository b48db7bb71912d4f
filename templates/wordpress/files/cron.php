<?php
require __DIR__ . '/cli.php';
require ABSPATH . 'wp-cron.php';
