<?php
// A post in the blog, and a letter to bob about it:
//   consolidate exec blog -- php < stacks/acme/post.php
require '/config/cli.php';
require WORDPRESS . '/wp-load.php';
$post = wp_insert_post([
    'post_title' => 'This post stays',
    'post_content' => 'It outlives the host that it was written on.',
    'post_status' => 'publish',
], true);
if (is_wp_error($post)) {
    error_log($post->get_error_message());
    exit(1);
}
if (!wp_mail('bob@acme.test', 'This letter stays', get_permalink($post))) {
    error_log("the letter was not sent");
    exit(1);
}
echo get_permalink($post), "\n";
