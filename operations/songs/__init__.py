"""What the operations of ACE-Step share: generate_music, edit_music and plan_music."""
