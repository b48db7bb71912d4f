<?php
require __DIR__ . '/cli.php';
require WORDPRESS . '/wp-cron.php';
